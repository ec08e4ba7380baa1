//! The memory budget: one for all layers, for members from their first received byte until they are decoded.
//!
//! Whoever holds a charge needs no second one to go on: it waits for the network (and gives up if that is slow while others
//! wait, see `receive.rs`) or for a decoding thread, never for the budget. What a thread inflates into is apart (see
//! `decode/outputs.rs`). Demand goes first and has a reserve that other classes cannot use.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::Class;

/// How many eighths of the budget the classes may use up to. What the background has queued may wait long for its
/// threads, so that the others need parts that it cannot fill.
const EIGHTHS: [u64; 4] = [8, 7, 6, 5];
/// How many may be in use after something was taken that can do without: it may wait for its threads as long, while a plan,
/// which it comes with, goes on.
const SPARE_EIGHTHS: u64 = 3;

/// A number of bytes to share.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: u64,
    /// By class.
    queues: [VecDeque<Waiter>; 4],
}

#[derive(Debug)]
struct Waiter {
    amount: u64,
    granted: oneshot::Sender<Charge>,
}

/// A share of the budget; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    amount: u64,
}

// === impl Budget ===

impl Budget {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit: limit.max(1), state: Mutex::default() })
    }

    /// Waits for `amount` bytes, or for the whole budget if it is less.
    pub(crate) async fn charge(self: &Arc<Self>, class: Class, amount: u64) -> Charge {
        let (granted, charge) = oneshot::channel();
        let waiter = Waiter { amount: amount.min(self.limit_of(class)), granted };
        if let Some(queue) = self.state.lock().queues.get_mut(class as usize) {
            queue.push_back(waiter);
        }
        self.grant();
        // The budget never drops a waiter, so that an error cannot happen; an empty charge does no harm.
        charge.await.unwrap_or_else(|_| Charge { budget: Arc::clone(self), amount: 0 })
    }

    /// `amount` bytes if there are plenty and nobody waits.
    pub(crate) fn try_charge(self: &Arc<Self>, amount: u64) -> Option<Charge> {
        let mut state = self.state.lock();
        let waits = state.queues.iter().flatten().any(|waiter| !waiter.granted.is_closed());
        if waits || state.used.saturating_add(amount) > self.eighths(SPARE_EIGHTHS) {
            return None;
        }
        state.used += amount;
        Some(Charge { budget: Arc::clone(self), amount })
    }

    /// Whether anyone waits for whom a request of `class` should make room: a more urgent class, or demand of another
    /// layer. The other classes often wait for others of their own, at their own limit.
    pub(crate) fn is_short(&self, class: Class) -> bool {
        let rivals = (class as usize).max(1);
        let state = self.state.lock();
        state.queues.iter().take(rivals).flatten().any(|waiter| !waiter.granted.is_closed())
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> u64 {
        self.state.lock().used
    }

    fn limit_of(&self, class: Class) -> u64 {
        self.eighths(EIGHTHS.get(class as usize).copied().unwrap_or(1))
    }

    fn eighths(&self, eighths: u64) -> u64 {
        (self.limit / 8 * eighths + self.limit % 8 * eighths / 8).max(1)
    }

    fn grant(self: &Arc<Self>) {
        while let Some(waiter) = self.next() {
            let charge = Charge { budget: Arc::clone(self), amount: waiter.amount };
            if let Err(mut refused) = waiter.granted.send(charge) {
                // Given back here and not by dropping it, which would end up here again, a level deeper.
                self.state.lock().used -= std::mem::take(&mut refused.amount);
            }
        }
    }

    /// Takes the next waiter whose amount is free, in the order of classes; nobody overtakes a class that waits.
    fn next(&self) -> Option<Waiter> {
        let mut state = self.state.lock();
        let state = &mut *state;
        for queue in &mut state.queues {
            while queue.front().is_some_and(|waiter| waiter.granted.is_closed()) {
                queue.pop_front();
            }
        }
        let classes = [Class::Demand, Class::ReadAhead, Class::Prefetch, Class::Background];
        let (class, queue) =
            classes.into_iter().zip(&mut state.queues).find(|(_, queue)| !queue.is_empty())?;
        let amount = queue.front()?.amount;
        if state.used.saturating_add(amount) > self.limit_of(class) {
            return None;
        }
        state.used += amount;
        queue.pop_front()
    }
}

// === impl Charge ===

impl Drop for Charge {
    fn drop(&mut self) {
        if self.amount > 0 {
            self.budget.state.lock().used -= self.amount;
            self.budget.grant();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn demand_has_a_reserve_and_goes_first() {
        let budget = Budget::new(100);
        let ahead = budget.charge(Class::ReadAhead, 87).await;
        assert!(timeout(SHORT, budget.charge(Class::Background, 1)).await.is_err());
        let demand = budget.charge(Class::Demand, 13).await;
        let later = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.charge(Class::Prefetch, 10).await }
        });
        let sooner = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.charge(Class::Demand, 80).await }
        });
        tokio::time::sleep(SHORT).await;
        assert!(budget.is_short(Class::Demand) && budget.is_short(Class::Background));
        drop(ahead);
        drop(demand);
        let sooner = timeout(SHORT * 10, sooner).await.unwrap().unwrap();
        assert!(!later.is_finished());
        drop(sooner);
        drop(later.await.unwrap());
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn what_is_plenty_is_had_at_once_unless_somebody_waits() {
        let budget = Budget::new(100);
        let held = budget.try_charge(30).unwrap();
        assert!(budget.try_charge(10).is_none(), "not plenty");
        let waiting = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.charge(Class::Demand, 80).await }
        });
        tokio::task::yield_now().await;
        assert!(budget.try_charge(1).is_none());
        drop(held);
        drop(waiting.await.unwrap());
        drop(budget.try_charge(37).unwrap());
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn more_than_there_is_takes_it_all() {
        let budget = Budget::new(100);
        let all = budget.charge(Class::Demand, 1000).await;
        assert_eq!(budget.used(), 100);
        for _ in 0..10 {
            assert!(timeout(Duration::ZERO, budget.charge(Class::Demand, 1)).await.is_err());
        }
        drop(all);
        assert_eq!(budget.used(), 0);
        assert!(!budget.is_short(Class::Background));
    }

    #[tokio::test]
    async fn the_background_at_its_limit_is_no_reason_to_make_room() {
        let budget = Budget::new(100);
        let held = budget.charge(Class::Background, 60).await;
        let waiting = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.charge(Class::Background, 10).await }
        });
        tokio::time::sleep(SHORT).await;
        assert!(!waiting.is_finished());
        for class in [Class::Demand, Class::ReadAhead, Class::Prefetch, Class::Background] {
            assert!(!budget.is_short(class));
        }
        drop(held);
        drop(waiting.await.unwrap());
    }
}
