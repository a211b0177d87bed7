use std::collections::VecDeque;
use std::time::Duration;

use lime_core::runs::Lease;
use tokio::time::Instant;

use crate::words::{Answer, Ask, WAITS};

/// What the workers of a lane want.
#[derive(Default)]
pub(crate) struct Demand {
    /// Questions, in the order in which they came, and when each was heard.
    pub(crate) open: VecDeque<(Ask, Instant)>,
    /// Workers that wait, and when they said so.
    pub(crate) waiting: VecDeque<(Ask, Instant)>,
    /// Leases that could not be put into the line, and until when they are good.
    pub(crate) spare: VecDeque<(Lease, Instant)>,
    /// Whether it shall be looked for those who wait, too.
    pub(crate) look: bool,
    /// When a worker of the lane was last heard.
    pub(crate) heard: Option<Instant>,
}

impl Demand {
    pub(crate) fn add(&mut self, ask: Ask, heard: Instant) {
        self.heard = Some(heard);
        if ask.answer.is_some() {
            self.open.push_back((ask, heard));
            return;
        }
        self.waiting.retain(|(waiting, _)| waiting.from != ask.from);
        if ask.room > 0 {
            self.waiting.push_back((ask, heard));
            self.look = true;
        }
    }

    /// Forgets whom nothing reaches any more: who was to be answered by now, who waits no longer, and leases that are
    /// over.
    pub(crate) fn forget_the_old(&mut self, answer_within: Duration) {
        self.open.retain(|(_, heard)| heard.elapsed() < answer_within);
        self.waiting.retain(|(_, heard)| heard.elapsed() < WAITS);
        self.spare.retain(|(_, until)| *until > Instant::now());
    }

    pub(crate) fn room(&self) -> usize {
        let waiting = self.waiting.iter().filter(|_| self.look);
        self.open.iter().chain(waiting).map(|(ask, _)| ask.room).fold(0, usize::saturating_add)
    }

    /// Whose leases these are to be; the questions are answered by it, those who wait are woken.
    pub(crate) fn share(&mut self, mut left: usize) -> Vec<(String, Answer)> {
        let mut answers = Vec::with_capacity(self.open.len());
        for (ask, _) in self.open.drain(..) {
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
    fn who_was_to_be_answered_by_now_is_forgotten() {
        let (mut demand, now) = (Demand::default(), Instant::now());
        let before = now.checked_sub(WAITS).unwrap();
        demand.add(ask("old", Some(1), 3), before);
        demand.add(ask("gone", None, 3), before);
        demand.add(ask("new", Some(2), 1), now);
        demand.add(ask("sleeper", None, 1), now);
        demand.forget_the_old(WAITS);
        assert_eq!(demand.room(), 2);
        let expected = [("new".to_owned(), Answer::Pushed(2, 1)), ("sleeper".to_owned(), Answer::Wake)];
        assert_eq!(demand.share(9), expected);
    }

    #[test]
    fn rooms_without_end_are_as_much_as_there_can_be() {
        let (mut demand, now) = (Demand::default(), Instant::now());
        demand.add(ask("a", Some(1), usize::MAX), now);
        demand.add(ask("b", Some(2), usize::MAX), now);
        assert_eq!(demand.room(), usize::MAX);
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
