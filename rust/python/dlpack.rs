//! Tensors in and out by DLPack, without a copy and without NumPy, which is what counts in a call
//! of a few microseconds.
//!
//! torch gives the functions of its exchange to extensions since 2.10 (`DLPackExchangeAPI` of
//! `dlpack.h`, from DLPack 1.2 on). Before, tensors go through capsules, of the layout before
//! DLPack 1, which every torch speaks.

use std::ffi::{CStr, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;

use ndarray::{ArrayView, ArrayViewD, Dimension, IxDyn, ShapeBuilder};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyCapsuleMethods, PyType};

use crate::buffer::Buffer;
use crate::simd::Real;

/// A capsule that nobody has taken over yet.
const NAME: &CStr = c"dltensor";

/// A capsule of the exchange's functions.
const EXCHANGE: &CStr = c"dlpack_exchange_api";

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
#[derive(Clone, Copy)]
struct Tensor {
    data: *mut c_void,
    device: Device,
    dimensions: i32,
    data_type: DataType,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

/// `DLPackVersion`.
#[repr(C)]
struct Version {
    major: u32,
    minor: u32,
}

/// `DLManagedTensor`.
#[repr(C)]
struct Unversioned {
    tensor: Tensor,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Unversioned)>,
}

/// `DLManagedTensorVersioned`.
#[repr(C)]
struct Versioned {
    version: Version,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Versioned)>,
    flags: u64,
    tensor: Tensor,
}

/// A tensor with what owns its memory.
trait Managed: Sized {
    fn new(tensor: Tensor, deleter: unsafe extern "C" fn(*mut Self)) -> Self;
    fn parts(&mut self) -> (&mut Tensor, &mut *mut c_void);
}

impl Managed for Unversioned {
    fn new(tensor: Tensor, deleter: unsafe extern "C" fn(*mut Self)) -> Self {
        Unversioned {
            tensor,
            context: ptr::null_mut(),
            deleter: Some(deleter),
        }
    }
    fn parts(&mut self) -> (&mut Tensor, &mut *mut c_void) {
        (&mut self.tensor, &mut self.context)
    }
}

impl Managed for Versioned {
    fn new(tensor: Tensor, deleter: unsafe extern "C" fn(*mut Self)) -> Self {
        Versioned {
            version: Version { major: 1, minor: 0 },
            context: ptr::null_mut(),
            deleter: Some(deleter),
            flags: 0,
            tensor,
        }
    }
    fn parts(&mut self) -> (&mut Tensor, &mut *mut c_void) {
        (&mut self.tensor, &mut self.context)
    }
}

/// `DLPackExchangeAPI`, as far as it is used.
#[repr(C)]
struct Functions {
    version: Version,
    /// The functions of an older version, and those that make a tensor and give one away: pointers.
    unused: [usize; 3],
    /// The Python object of a tensor, which it takes over; -1 with an exception set.
    to_python:
        Option<unsafe extern "C" fn(from: *mut Versioned, to: *mut *mut ffi::PyObject) -> c_int>,
    /// The tensor of a Python object, which keeps it; -1 with an exception set.
    borrow: Option<unsafe extern "C" fn(from: *mut ffi::PyObject, to: *mut Tensor) -> c_int>,
}

/// How tensors of a library go in and out.
#[pyclass(name = "Exchange", module = "rnncore._core", frozen)]
pub(super) struct Exchange {
    functions: Option<&'static Functions>,
    kinds: Vec<Py<PyType>>,
    is_view: Py<PyAny>,
    to_capsule: Py<PyAny>,
    from_capsule: Py<PyAny>,
}

#[pymethods]
impl Exchange {
    /// `api` is the library's `__dlpack_c_exchange_api__`, if it has one; `kinds` are the types
    /// whose tensors hold numbers, unless `is_view` says of one that it holds others than it stands
    /// for.
    #[new]
    fn new(
        api: Option<&Bound<'_, PyCapsule>>,
        kinds: Vec<Py<PyType>>,
        is_view: Py<PyAny>,
        to_capsule: Py<PyAny>,
        from_capsule: Py<PyAny>,
    ) -> Self {
        let functions = api.and_then(|api| {
            let functions = api.pointer_checked(Some(EXCHANGE)).ok()?;
            // SAFETY: a capsule of this name points to a `DLPackExchangeAPI`, which is there as
            // long as the process; what is read first, the version, is the same in all of them.
            let version = unsafe { functions.cast::<Version>().as_ref() };
            // SAFETY: as above, and the fields are those of version 1.
            (version.major == 1).then(|| unsafe { functions.cast::<Functions>().as_ref() })
        });
        Exchange {
            functions: functions.filter(|f| f.borrow.is_some() && f.to_python.is_some()),
            kinds,
            is_view,
            to_capsule,
            from_capsule,
        }
    }
}

impl Exchange {
    /// The tensor of an object; None unless it holds its own numbers in memory.
    pub fn hold<'py>(&self, object: &Bound<'py, PyAny>) -> Option<Held<'py>> {
        let (py, kind) = (object.py(), object.get_type());
        if !self.kinds.iter().any(|known| known.is(&kind)) {
            return None;
        }
        // An object for which this fails is none whose numbers can be read.
        if self
            .is_view
            .bind(py)
            .call1((object,))
            .ok()?
            .is_truthy()
            .ok()?
        {
            return None;
        }
        let Some(borrow) = self.functions.and_then(|f| f.borrow) else {
            let capsule = self.to_capsule.bind(py).call1((object,)).ok()?;
            return Held::of_capsule(capsule.cast_into().ok()?);
        };
        let mut tensor = MaybeUninit::uninit();
        // SAFETY: the object is of a type that the functions are of, and attached.
        if unsafe { borrow(object.as_ptr(), tensor.as_mut_ptr()) } != 0 {
            drop(PyErr::take(py));
            return None;
        }
        Some(Held {
            // SAFETY: with success, the function has filled all of it.
            tensor: unsafe { tensor.assume_init() },
            owner: object.clone(),
        })
    }
}

/// A tensor of Python's that lives at least as long as this.
pub(super) struct Held<'py> {
    tensor: Tensor,
    #[expect(dead_code, reason = "keeps what the tensor points to")]
    owner: Bound<'py, PyAny>,
}

impl<'py> Held<'py> {
    fn of_capsule(capsule: Bound<'py, PyCapsule>) -> Option<Self> {
        let managed = capsule
            .pointer_checked(Some(NAME))
            .ok()?
            .cast::<Unversioned>();
        // SAFETY: a capsule of this name holds a `DLManagedTensor`, within which the tensor lies.
        let tensor = unsafe { (*managed.as_ptr()).tensor };
        Some(Held {
            tensor,
            owner: capsule.into_any(),
        })
    }

    /// Its numbers; None unless they lie on the CPU, are of this type and aligned.
    ///
    /// Nobody may write to them meanwhile, as with a borrowed NumPy array.
    pub fn view<T: Scalar>(&self) -> Option<ArrayViewD<'_, T>> {
        let tensor = &self.tensor;
        let dimensions = usize::try_from(tensor.dimensions).ok()?;
        let sizes = |from: *mut i64| -> Option<IxDyn> {
            let mut sizes = IxDyn::zeros(dimensions);
            if dimensions == 0 {
                return Some(sizes);
            }
            if from.is_null() {
                return None;
            }
            // SAFETY: `from` is not null, and DLPack has it point to as many numbers as dimensions,
            // which live as long as the owner: Python's tensor, or a capsule that was made for us.
            let from = unsafe { slice::from_raw_parts(from, dimensions) };
            for (to, &from) in sizes.slice_mut().iter_mut().zip(from) {
                *to = from.try_into().ok()?;
            }
            Some(sizes)
        };
        let (shape, strides) = (sizes(tensor.shape)?, sizes(tensor.strides)?);
        let data = tensor.data.wrapping_byte_add(tensor.byte_offset as usize);
        let data = data.cast::<T>();
        let fits = tensor.device.kind == CPU && tensor.data_type == type_of::<T>();
        if !fits || data.is_null() || !data.is_aligned() || shape.slice().contains(&0) {
            return None;
        }
        let shape = shape.strides(strides);
        // SAFETY: the memory belongs to the owner's tensor, of this type, shape and strides, which
        // were checked to be no less than 0, at an address that was checked to be aligned.
        Some(unsafe { ArrayView::from_shape_ptr(shape, data) })
    }
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

/// Numbers in several tensors, each a part of its own.
pub(super) struct Shared<T> {
    start: NonNull<T>,
    length: usize,
    owner: Arc<Numbers>,
}

/// What is freed when the last tensor is gone.
type Numbers = dyn Send + Sync;

/// A tensor for somebody else, and what it points to.
struct Given<M> {
    managed: M,
    shape: [i64; DIMENSIONS],
    strides: [i64; DIMENSIONS],
    #[expect(dead_code, reason = "kept alive")]
    owner: Arc<Numbers>,
}

impl<T: Real + Scalar> Shared<T> {
    pub fn new(mut values: Buffer<T>) -> Self {
        // A buffer's pointer is never null, and moving the buffer does not move its numbers.
        let start = NonNull::new(values.as_mut_ptr()).unwrap_or(NonNull::dangling());
        Shared {
            start,
            length: values.len(),
            owner: Arc::new(values),
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
        exchange: &Exchange,
        offset: usize,
        shape: &[usize],
    ) -> PyResult<Bound<'py, PyAny>> {
        let Some(to_python) = exchange.functions.and_then(|f| f.to_python) else {
            let managed = self.managed::<Unversioned>(offset, shape).cast();
            // SAFETY: the pointer is to a `DLManagedTensor`, as the name promises, that lives until
            // its deleter is called, by `destroy` or by whoever has taken it over.
            let capsule = unsafe {
                PyCapsule::new_with_pointer_and_destructor(py, managed, NAME, Some(destroy))
            }?;
            return exchange.from_capsule.bind(py).call1((capsule,));
        };
        let managed = self.managed::<Versioned>(offset, shape);
        let mut object = ptr::null_mut();
        // SAFETY: the tensor lives until whoever has taken it over calls its deleter; attached.
        if unsafe { to_python(managed.as_ptr(), &mut object) } != 0 {
            return Err(PyErr::fetch(py));
        }
        // SAFETY: with success, the function gives an object that is ours.
        unsafe { Bound::from_owned_ptr_or_err(py, object) }
    }

    /// The same as a tensor that lives until its deleter is called.
    fn managed<M: Managed>(&self, offset: usize, shape: &[usize]) -> NonNull<M> {
        let count: usize = shape.iter().product();
        assert!(shape.len() <= DIMENSIONS && offset + count <= self.length);
        let (mut sizes, mut strides) = ([0; DIMENSIONS], [0; DIMENSIONS]);
        let mut stride = 1;
        for (axis, &size) in shape.iter().enumerate().rev() {
            (sizes[axis], strides[axis]) = (size as i64, stride);
            stride *= size as i64;
        }
        let tensor = Tensor {
            // SAFETY: `offset` was checked to lie within the numbers.
            data: unsafe { self.start.add(offset) }.as_ptr().cast(),
            device: Device { kind: CPU, id: 0 },
            dimensions: shape.len() as i32,
            data_type: type_of::<T>(),
            shape: ptr::null_mut(),
            strides: ptr::null_mut(),
            byte_offset: 0,
        };
        let given = Box::into_raw(Box::new(Given {
            managed: M::new(tensor, delete::<M>),
            shape: sizes,
            strides,
            owner: Arc::clone(&self.owner),
        }));
        // SAFETY: `given` came from a box just now, and nobody else has it.
        unsafe {
            let (tensor, context) = (*given).managed.parts();
            tensor.shape = (&raw mut (*given).shape).cast();
            tensor.strides = (&raw mut (*given).strides).cast();
            *context = given.cast();
        }
        // SAFETY: `given` came from a box, so it is not null, and `managed` lies within it.
        unsafe { NonNull::new_unchecked(&raw mut (*given).managed) }
    }
}

/// The deleter of what [`Shared::managed`] made.
unsafe extern "C" fn delete<M: Managed>(managed: *mut M) {
    // SAFETY: whoever owns a tensor calls its deleter, once; its context is the box that holds it.
    drop(unsafe { Box::from_raw((*managed).parts().1.cast::<Given<M>>()) });
}

/// The destructor of a capsule: deletes the tensor unless somebody has taken it over, and the name
/// changed with it.
unsafe extern "C" fn destroy(capsule: *mut ffi::PyObject) {
    // SAFETY: Python calls this with the capsule, attached; a capsule of this name holds a
    // `DLManagedTensor` that nobody has deleted.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, NAME.as_ptr()) == 1 {
            let managed = ffi::PyCapsule_GetPointer(capsule, NAME.as_ptr()).cast::<Unversioned>();
            if let Some(deleter) = (*managed).deleter {
                deleter(managed);
            }
        }
    }
}
