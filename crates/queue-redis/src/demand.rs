use std::collections::VecDeque;
use std::time::Duration;

use lime_core::runs::Lease;
use tokio::time::Instant;

use crate::words::{Answer, Ask};

/// How long a worker is thought to wait, unless it says so again.
const WAITS: Duration = Duration::from_secs(3);

/// What the workers of a lane want.
#[derive(Default)]
pub(crate) struct Demand {
    /// Questions, in the order in which they came.
    pub(crate) open: VecDeque<Ask>,
    /// Workers that wait, and until when they are thought to.
    pub(crate) waiting: VecDeque<(Ask, Instant)>,
    /// Leases that could not be put into the line, and until when they are good.
    pub(crate) spare: VecDeque<(Lease, Instant)>,
    /// Whether it shall be looked for those who wait, too.
    pub(crate) look: bool,
    pub(crate) asked_at: Option<Instant>,
}

impl Demand {
    pub(crate) fn add(&mut self, ask: Ask, now: Instant) {
        self.asked_at = Some(now);
        if ask.answer.is_some() {
            self.open.push_back(ask);
            return;
        }
        self.waiting.retain(|(waiting, _)| waiting.from != ask.from);
        if ask.room > 0 {
            self.waiting.push_back((ask, now + WAITS));
            self.look = true;
        }
    }

    pub(crate) fn room(&self) -> usize {
        let open = self.open.iter().map(|ask| ask.room).sum::<usize>();
        let waiting = self.waiting.iter().filter(|_| self.look).map(|(ask, _)| ask.room).sum();
        open.saturating_add(waiting)
    }

    /// Whose leases these are to be; the questions are answered by it, those who wait are woken.
    pub(crate) fn share(&mut self, mut left: usize) -> Vec<(String, Answer)> {
        let mut answers = Vec::with_capacity(self.open.len());
        for ask in self.open.drain(..) {
            let share = left.min(ask.room);
            left -= share;
            answers.push((ask.from, Answer::Pushed(ask.answer.unwrap_or_default(), share)));
        }
        while left > 0
            && let Some((ask, _)) = self.waiting.front_mut()
        {
            let share = left.min(ask.room);
            left -= share;
            ask.room -= share;
            answers.push((ask.from.clone(), Answer::Wake));
            if ask.room == 0 {
                self.waiting.pop_front();
            }
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Kind;

    fn ask(from: &str, answer: Option<u64>, room: usize) -> Ask {
        let (lease, kind) = (Duration::from_secs(1), Kind::parse("claude").unwrap());
        Ask { from: from.into(), answer, room, lease, kind }
    }

    #[test]
    fn questions_come_before_those_who_wait() {
        let (mut demand, now) = (Demand::default(), Instant::now());
        demand.add(ask("sleeper", None, 2), now);
        demand.add(ask("a", Some(1), 3), now);
        demand.add(ask("b", Some(2), 3), now);
        assert_eq!(demand.room(), 8);
        let shared = demand.share(5);
        let expected = [("a".to_owned(), Answer::Pushed(1, 3)), ("b".to_owned(), Answer::Pushed(2, 2))];
        assert_eq!(shared, expected);
        assert_eq!(demand.share(1), [("sleeper".to_owned(), Answer::Wake)]);
        assert_eq!(demand.room(), 1, "it has room for one more");
        assert_eq!(demand.share(5), [("sleeper".to_owned(), Answer::Wake)]);
        assert_eq!(demand.share(5), []);
    }

    #[test]
    fn every_question_is_answered() {
        let mut demand = Demand::default();
        demand.add(ask("a", Some(1), 3), Instant::now());
        assert_eq!(demand.share(0), [("a".to_owned(), Answer::Pushed(1, 0))]);
    }

    #[test]
    fn who_waits_is_counted_once_and_only_when_looked_for() {
        let (mut demand, now) = (Demand::default(), Instant::now());
        demand.add(ask("sleeper", None, 2), now);
        demand.add(ask("sleeper", None, 3), now);
        assert_eq!(demand.room(), 3);
        demand.look = false;
        assert_eq!(demand.room(), 0);
        demand.look = true;
        demand.add(ask("sleeper", None, 0), now);
        assert_eq!(demand.room(), 0, "it has woken up");
    }
}
