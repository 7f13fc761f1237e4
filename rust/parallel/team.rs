//! Work in phases: threads that share each phase and go on to the next one together.
//!
//! A phase is cut into the same parts as every other, and every part is some thread's own, so that
//! what it reads in each phase stays in that thread's cache. But nothing relies on the threads
//! being there: a part that nobody has begun after a moment is taken by whoever waits for it, who
//! then keeps it until its owner comes. So one thread may do everything, threads may join late
//! (they find the phases behind them done), and a pool that has fewer threads to give, or none,
//! only takes longer. A thread waits for parts that another one is at, and for nothing else.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The parts of a piece of work in phases, and how far they are.
pub(crate) struct Team {
    parts: usize,
    /// Of each part, the phases that somebody has begun. None if there is one part alone, which
    /// nobody waits for.
    begun: Vec<Line>,
    /// Of each part, likewise, the phases that are done; [`BROKEN`] if it has panicked. (A counter
    /// for all parts would be one line that every thread must have for itself to add to it, one
    /// after the other; so, a thread writes its own and the others read it.)
    done: Vec<Line>,
}

/// A number that has its cache line to itself, and the one that is fetched with it.
#[repr(align(128))]
#[derive(Default)]
struct Line(AtomicUsize);

/// More phases than anybody can do.
const BROKEN: usize = usize::MAX;

/// A thread's way through the phases of a [`Team`].
pub(crate) struct Member<'a> {
    team: &'a Team,
    /// The part that is the thread's own.
    own: usize,
    phase: usize,
    /// The phases that were done when last looked at.
    seen: usize,
    /// Whether a part of the phase before had been left to it.
    takes_more: bool,
    /// Whether no part was seen to have panicked.
    goes_on: bool,
}

impl Team {
    /// Work whose phases have `parts` parts, one or more.
    pub fn new(parts: usize) -> Self {
        assert!(parts > 0);
        let shared = if parts > 1 { parts } else { 0 };
        let lines = || (0..shared).map(|_| Line::default()).collect();
        Team {
            parts,
            begun: lines(),
            done: lines(),
        }
    }

    /// The parts of a phase.
    pub fn parts(&self) -> usize {
        self.parts
    }

    /// The calling thread's way through the phases, `own` being its part.
    pub fn member(&self, own: usize) -> Member<'_> {
        assert!(own < self.parts());
        Member {
            team: self,
            own,
            phase: 0,
            seen: 0,
            takes_more: false,
            goes_on: true,
        }
    }
}

impl Member<'_> {
    /// The next phase: calls `work` with parts of it that nobody else is at, the thread's own
    /// first, and returns when all are done. All members call this equally often, for work that
    /// depends on the phase and the part alone. What was written in a phase is seen in the next.
    ///
    /// Says whether to go on: not if `work` has panicked on another thread. There must be no next
    /// phase then.
    ///
    /// # Panics
    /// When `work` does.
    #[must_use]
    pub fn share(&mut self, mut work: impl FnMut(usize)) -> bool {
        /// Looks until parts that nobody is at are taken: about a microsecond.
        const PATIENCE: usize = 1 << 6;
        /// Looks until the processor is offered to another thread: it may be the one waited for.
        const SPIN: usize = 1 << 10;
        let parts = self.team.parts();
        if parts == 1 {
            // Nobody waits for this thread, and steps of a small layer are over in 100 ns.
            work(0);
        } else if self.seen <= self.phase {
            self.take(self.own, &mut work);
            let mut looks = if self.takes_more { PATIENCE } else { 0 };
            self.takes_more = false;
            while !self.is_done() {
                if looks == PATIENCE {
                    for part in (1..parts).map(|apart| (self.own + apart) % parts) {
                        self.takes_more |= self.take(part, &mut work);
                    }
                }
                looks += 1;
                if looks < SPIN {
                    std::hint::spin_loop();
                } else {
                    thread::yield_now();
                }
            }
        }
        self.phase += 1;
        self.goes_on
    }

    /// Whether all parts of the phase are done.
    fn is_done(&mut self) -> bool {
        let done = self.team.done.iter();
        let done = done.map(|done| done.0.load(Ordering::Acquire));
        let (mut least, mut most) = (BROKEN, 0);
        for done in done {
            (least, most) = (least.min(done), most.max(done));
        }
        self.seen = least;
        self.goes_on = most < BROKEN;
        least > self.phase
    }

    /// Does a part of this phase if nobody else has begun it, and says whether it did.
    fn take(&self, part: usize, work: &mut impl FnMut(usize)) -> bool {
        struct Unwinding<'a>(&'a Line);
        impl Drop for Unwinding<'_> {
            fn drop(&mut self) {
                self.0.0.store(BROKEN, Ordering::Release);
            }
        }
        let (begun, done) = (&self.team.begun[part].0, &self.team.done[part]);
        // Whoever is at a phase has seen the one before done, so this need not order anything.
        let (free, taken) = (self.phase, self.phase + 1);
        let claim = begun.compare_exchange(free, taken, Ordering::Relaxed, Ordering::Relaxed);
        if claim.is_err() {
            return false;
        }
        let unwinding = Unwinding(done);
        work(part);
        std::mem::forget(unwinding);
        done.0.store(taken, Ordering::Release);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::{for_each, run};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Mutex;
    use std::time::Duration;

    const PHASES: usize = 200;

    /// Goes through all phases on as many threads as there are, each number being the sum of
    /// those of the phase before.
    fn sums(parts: usize, workers: usize, pause: impl Fn(usize, usize) + Sync) -> Vec<u64> {
        let team = Team::new(parts);
        let numbers: Vec<[AtomicUsize; 2]> = (0..parts).map(|_| Default::default()).collect();
        let of = |phase: usize| numbers.iter().map(move |both| &both[phase % 2]);
        of(0).for_each(|number| number.store(1, Ordering::Relaxed));
        for_each(workers, (0..parts).collect(), |own| {
            let mut member = team.member(own);
            for phase in 0..PHASES {
                let goes_on = member.share(|part| {
                    pause(phase, part);
                    let sum = of(phase)
                        .map(|number| number.load(Ordering::Relaxed))
                        .fold(part, usize::wrapping_add);
                    numbers[part][(phase + 1) % 2].store(sum, Ordering::Relaxed);
                });
                assert!(goes_on);
            }
        });
        let last = of(PHASES);
        last.map(|number| number.load(Ordering::Relaxed) as u64)
            .collect()
    }

    #[test]
    fn every_phase_sees_the_one_before_whole() {
        for parts in [1, 2, 3, 7] {
            let alone = sums(parts, 1, |_, _| {});
            for workers in [2, 3, 7] {
                assert_eq!(sums(parts, workers, |_, _| {}), alone);
            }
            let late = |phase: usize, part: usize| {
                if (phase * 7 + part).is_multiple_of(97) {
                    thread::sleep(Duration::from_micros(300));
                }
            };
            assert_eq!(sums(parts, 3, late), alone);
        }
    }

    #[test]
    fn a_part_without_its_thread_is_done_by_those_there_are() {
        let team = Team::new(3);
        let done = Mutex::new(Vec::new());
        let mut member = team.member(1);
        for phase in 0..3 {
            assert!(member.share(|part| done.lock().unwrap().push((phase, part))));
        }
        let order = [1, 2, 0];
        let expected = (0..3).flat_map(|phase| order.map(|part| (phase, part)));
        assert!(done.lock().unwrap().iter().copied().eq(expected));
        // Who comes late finds nothing to do, and is held by nobody.
        let mut late = team.member(0);
        for _ in 0..3 {
            assert!(late.share(|_| unreachable!()));
        }
    }

    #[test]
    fn teams_within_teams() {
        let outer = Team::new(2);
        let total = AtomicUsize::new(0);
        run(2, |own| {
            let mut member = outer.member(own);
            for _ in 0..20 {
                assert!(member.share(|_| {
                    let found = sums(2, 2, |_, _| {}).len();
                    total.fetch_add(found, Ordering::Relaxed);
                }));
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 2 * 2 * 20);
    }

    #[test]
    fn a_panic_holds_nobody_and_reaches_the_caller() {
        for guilty in 0..3 {
            let team = Team::new(3);
            let payload = catch_unwind(AssertUnwindSafe(|| {
                for_each(3, vec![0, 1, 2], |own| {
                    let mut member = team.member(own);
                    for phase in 0..PHASES {
                        let work = |part| assert!((phase, part) != (50, guilty), "part {part}");
                        if !member.share(work) {
                            return;
                        }
                    }
                    unreachable!("all parts stop");
                });
            }))
            .unwrap_err();
            let message = payload.downcast_ref::<String>();
            assert_eq!(message, Some(&format!("part {guilty}")));
        }
    }
}
