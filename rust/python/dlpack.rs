//! Tensors in and out as DLPack's capsules, without a copy and without NumPy: a capsule costs a
//! fraction of an array, which is what counts in a call of a few microseconds.
//!
//! The layout is that of DLPack before version 1 (`dlpack.h`), which every torch speaks.

use std::ffi::{CStr, c_void};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;

use ndarray::{ArrayView, ArrayViewD, IxDyn, ShapeBuilder};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyCapsuleMethods};

/// A capsule that nobody has taken over yet.
const NAME: &CStr = c"dltensor";

/// `kDLCPU`.
const CPU: i32 = 1;

/// The most dimensions of what is given to Python.
const DIMENSIONS: usize = 3;

#[repr(C)]
#[derive(Clone, Copy)]
struct Device {
    kind: i32,
    id: i32,
}

#[repr(C)]
#[derive(Clone, Copy, PartialEq)]
struct DataType {
    code: u8,
    bits: u8,
    lanes: u16,
}

/// `DLTensor`.
#[repr(C)]
struct Tensor {
    data: *mut c_void,
    device: Device,
    dimensions: i32,
    data_type: DataType,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

/// `DLManagedTensor`.
#[repr(C)]
struct Managed {
    tensor: Tensor,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Managed)>,
}

/// What may lie in a tensor.
pub(super) trait Scalar: Copy + Send + Sync + 'static {
    /// `kDLInt` or `kDLFloat`.
    const CODE: u8;
}

impl Scalar for i64 {
    const CODE: u8 = 0;
}
impl Scalar for f32 {
    const CODE: u8 = 2;
}
impl Scalar for f64 {
    const CODE: u8 = 2;
}

fn type_of<T: Scalar>() -> DataType {
    DataType {
        code: T::CODE,
        bits: 8 * size_of::<T>() as u8,
        lanes: 1,
    }
}

/// The tensor of a capsule; None unless it lies on the CPU, is of this type and aligned.
///
/// Nobody may write to it meanwhile, as with a borrowed NumPy array.
pub(super) fn view<'a, T: Scalar>(capsule: &'a Bound<'_, PyCapsule>) -> Option<ArrayViewD<'a, T>> {
    let managed = capsule.pointer_checked(Some(NAME)).ok()?;
    // SAFETY: a capsule of this name holds a `DLManagedTensor`, which lives as long as the capsule,
    // since nobody renames it while it is borrowed.
    let tensor = &unsafe { managed.cast::<Managed>().as_ref() }.tensor;
    let dimensions = usize::try_from(tensor.dimensions).ok()?;
    let sizes = |from: *mut i64| -> Option<Vec<usize>> {
        if dimensions == 0 {
            return Some(Vec::new());
        }
        if from.is_null() {
            return None;
        }
        // SAFETY: `from` is not null, and DLPack has it point to as many numbers as dimensions.
        let sizes = unsafe { slice::from_raw_parts(from, dimensions) };
        sizes.iter().map(|&size| size.try_into().ok()).collect()
    };
    let (shape, strides) = (sizes(tensor.shape)?, sizes(tensor.strides)?);
    let data = tensor.data.wrapping_byte_add(tensor.byte_offset as usize);
    let data = data.cast::<T>();
    let fits = tensor.device.kind == CPU && tensor.data_type == type_of::<T>();
    if !fits || data.is_null() || !data.is_aligned() || shape.contains(&0) {
        return None;
    }
    let shape = IxDyn(&shape).strides(IxDyn(&strides));
    // SAFETY: the memory belongs to the capsule's tensor, of this type, shape and strides, which
    // were checked to be no less than 0, at an address that was checked to be aligned.
    Some(unsafe { ArrayView::from_shape_ptr(shape, data) })
}

/// Numbers in several capsules' tensors, each a part of its own.
pub(super) struct Shared<T> {
    start: NonNull<T>,
    length: usize,
    owner: Arc<Owner<T>>,
}

/// Frees what it holds when the last tensor is gone.
struct Owner<T>(#[expect(dead_code, reason = "kept alive")] Vec<T>);

/// A tensor that a capsule holds, and what it points to.
struct Given<T> {
    managed: Managed,
    shape: [i64; DIMENSIONS],
    strides: [i64; DIMENSIONS],
    #[expect(dead_code, reason = "kept alive")]
    owner: Arc<Owner<T>>,
}

impl<T: Scalar> Shared<T> {
    pub fn new(mut values: Vec<T>) -> Self {
        // A vector's pointer is never null, and moving the vector does not move its numbers.
        let start = NonNull::new(values.as_mut_ptr()).unwrap_or(NonNull::dangling());
        Shared {
            start,
            length: values.len(),
            owner: Arc::new(Owner(values)),
        }
    }

    /// The numbers from `offset` on as a tensor of this shape, rows one after another. Each number
    /// may go into one tensor only.
    ///
    /// # Panics
    /// When there are fewer numbers, or too many dimensions.
    pub fn give<'py>(
        &self,
        py: Python<'py>,
        offset: usize,
        shape: &[usize],
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let count: usize = shape.iter().product();
        assert!(shape.len() <= DIMENSIONS && offset + count <= self.length);
        let (mut sizes, mut strides) = ([0; DIMENSIONS], [0; DIMENSIONS]);
        let mut stride = 1;
        for (axis, &size) in shape.iter().enumerate().rev() {
            (sizes[axis], strides[axis]) = (size as i64, stride);
            stride *= size as i64;
        }
        let given = Box::into_raw(Box::new(Given {
            managed: Managed {
                tensor: Tensor {
                    // SAFETY: `offset` was checked to lie within the vector.
                    data: unsafe { self.start.add(offset) }.as_ptr().cast(),
                    device: Device { kind: CPU, id: 0 },
                    dimensions: shape.len() as i32,
                    data_type: type_of::<T>(),
                    shape: ptr::null_mut(),
                    strides: ptr::null_mut(),
                    byte_offset: 0,
                },
                context: ptr::null_mut(),
                deleter: Some(delete::<T>),
            },
            shape: sizes,
            strides,
            owner: Arc::clone(&self.owner),
        }));
        // SAFETY: `given` came from a box just now, and nobody else has it.
        unsafe {
            (*given).managed.tensor.shape = (&raw mut (*given).shape).cast();
            (*given).managed.tensor.strides = (&raw mut (*given).strides).cast();
            (*given).managed.context = given.cast();
        }
        // SAFETY: `given` came from a box, so it is not null, and `managed` lies within it.
        let managed = unsafe { NonNull::new_unchecked(&raw mut (*given).managed) };
        // SAFETY: the pointer is to a `DLManagedTensor`, as the name promises, that lives until its
        // deleter is called, by `destroy` or by whoever has taken it over.
        unsafe {
            PyCapsule::new_with_pointer_and_destructor(py, managed.cast(), NAME, Some(destroy))
        }
    }
}

/// The deleter of what [`Shared::give`] made.
unsafe extern "C" fn delete<T>(managed: *mut Managed) {
    // SAFETY: whoever owns a tensor calls its deleter, once; its context is the box that holds it.
    drop(unsafe { Box::from_raw((*managed).context.cast::<Given<T>>()) });
}

/// The destructor of a capsule: deletes the tensor unless somebody has taken it over, and the name
/// changed with it.
unsafe extern "C" fn destroy(capsule: *mut ffi::PyObject) {
    // SAFETY: Python calls this with the capsule, attached; a capsule of this name holds a
    // `DLManagedTensor` that nobody has deleted.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, NAME.as_ptr()) == 1 {
            let managed = ffi::PyCapsule_GetPointer(capsule, NAME.as_ptr()).cast::<Managed>();
            if let Some(deleter) = (*managed).deleter {
                deleter(managed);
            }
        }
    }
}
