//! What became of the bytes on their way to a sandbox: on the way, arrived out of order, or lost.
//!
//! Losses are found by order: what left before something that arrived, and did not arrive itself, is lost, whether it
//! left for the first time or again. That is RFC 8985 (RACK) with places in the order of sending instead of times. A
//! byte that was sent once has its place by its number. One that was sent again has its turn among those sent again,
//! and the number that new bytes had reached when it was.
//!
//! Nothing is kept, and nothing allocated, while all is on its way for the first time.

use super::segment::before;

/// Pieces at most before selective acknowledgements that would cut finer are left unread: they are advice.
const MOST_PIECES: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// On its way for the first time.
    Sent,
    /// On its way again: as the `turn`-th piece, when new bytes had reached `reached`.
    Again { turn: u64, reached: u32 },
    Arrived,
    Lost,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    start: u32,
    end: u32,
    fate: Fate,
}

impl Piece {
    const fn len(&self) -> u32 {
        self.end.wrapping_sub(self.start)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Scoreboard {
    /// All that is not acknowledged, in order and without gaps; none while nothing is unusual.
    pieces: Vec<Piece>,
    /// Pieces sent again so far.
    turns: u64,
    /// The latest that is known to have arrived: of those sent once, where it ends;
    latest: u32,
    /// of those sent again, its turn, and what new bytes had reached.
    latest_again: (u64, u32),
}

impl Scoreboard {
    /// Whether all is on its way for the first time.
    pub(crate) const fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Begins to keep track of `first..end`, all of which is on its way for the first time.
    pub(crate) fn begin(&mut self, first: u32, end: u32) {
        if self.pieces.is_empty() && first != end {
            self.pieces.push(Piece { start: first, end, fate: Fate::Sent });
            (self.latest, self.latest_again) = (first, (0, first));
        }
    }

    /// New bytes, up to `end`, left.
    pub(crate) fn extend(&mut self, end: u32) {
        match self.pieces.last_mut() {
            None => {}
            Some(last) if last.fate == Fate::Sent => last.end = end,
            Some(&mut Piece { end: start, .. }) => self.pieces.push(Piece { start, end, fate: Fate::Sent }),
        }
    }

    /// Bytes on their way, of those kept track of.
    pub(crate) fn pipe(&self) -> u32 {
        self.pieces.iter().filter(|piece| matches!(piece.fate, Fate::Sent | Fate::Again { .. })).map(Piece::len).sum()
    }

    /// Bytes that arrived out of order.
    pub(crate) fn arrived(&self) -> u32 {
        self.pieces.iter().filter(|piece| piece.fate == Fate::Arrived).map(Piece::len).sum()
    }

    fn note(&mut self, fate: Fate, end: u32) {
        match fate {
            Fate::Sent if before(self.latest, end) => self.latest = end,
            Fate::Again { turn, reached } if turn > self.latest_again.0 => self.latest_again = (turn, reached),
            _ => {}
        }
    }

    /// All before `ack` arrived.
    pub(crate) fn acknowledge(&mut self, ack: u32) {
        let whole = self.pieces.partition_point(|piece| !before(ack, piece.end));
        for at in 0..whole {
            self.note(self.pieces[at].fate, self.pieces[at].end);
        }
        self.pieces.drain(..whole);
        if let Some(first) = self.pieces.first_mut()
            && before(first.start, ack)
        {
            first.start = ack;
            let fate = first.fate;
            self.note(fate, ack);
        }
        if self.pieces.iter().all(|piece| piece.fate == Fate::Sent) {
            self.pieces.clear();
        }
    }

    /// `from..to` arrived, as the sandbox says; whether that is news. What was never sent, or is acknowledged already
    /// (RFC 2883), is none.
    pub(crate) fn arrive(&mut self, from: u32, to: u32) -> bool {
        let (Some(first), Some(last)) = (self.pieces.first(), self.pieces.last()) else { return false };
        if !before(from, to) || before(from, first.start) || before(last.end, to) {
            return false;
        }
        let mut news = false;
        let mut at = self.pieces.partition_point(|piece| !before(from, piece.end));
        while let Some(piece) = self.pieces.get(at).copied().filter(|piece| before(piece.start, to)) {
            if piece.fate == Fate::Arrived {
                at += 1;
                continue;
            }
            if self.pieces.len() >= MOST_PIECES {
                break;
            }
            if before(piece.start, from) {
                self.split(at, from);
                at += 1;
            }
            if before(to, piece.end) {
                self.split(at, to);
            }
            self.note(piece.fate, self.pieces[at].end);
            self.pieces[at].fate = Fate::Arrived;
            news = true;
            at = self.join(at) + 1;
        }
        news
    }

    /// Cuts a piece in two at `number`, which lies inside of it.
    fn split(&mut self, at: usize, number: u32) {
        let rest = Piece { start: number, ..self.pieces[at] };
        self.pieces[at].end = number;
        self.pieces.insert(at + 1, rest);
    }

    /// Makes one of a piece and those beside it that share its fate; where that one is.
    fn join(&mut self, at: usize) -> usize {
        if self.pieces.get(at + 1).is_some_and(|next| next.fate == self.pieces[at].fate) {
            self.pieces[at].end = self.pieces[at + 1].end;
            self.pieces.remove(at + 1);
        }
        if at > 0 && self.pieces[at - 1].fate == self.pieces[at].fate {
            self.pieces[at - 1].end = self.pieces[at].end;
            self.pieces.remove(at);
            return at - 1;
        }
        at
    }

    /// Gives up all that left before something that arrived.
    pub(crate) fn lose_overtaken(&mut self) {
        let (latest, (turn, reached)) = (self.latest, self.latest_again);
        let once = if turn > 0 && before(latest, reached) { reached } else { latest };
        if let Some(at) = self.pieces.iter().position(|piece| piece.fate == Fate::Sent && before(piece.start, once) && before(once, piece.end)) {
            self.split(at, once);
        }
        for piece in &mut self.pieces {
            let is_overtaken = match piece.fate {
                Fate::Sent => before(piece.start, once),
                Fate::Again { turn: own, reached } => own < turn || before(reached, latest),
                Fate::Arrived | Fate::Lost => false,
            };
            if is_overtaken {
                piece.fate = Fate::Lost;
            }
        }
        self.pieces.dedup_by(|next, kept| {
            let is_one = next.fate == kept.fate;
            if is_one {
                kept.end = next.end;
            }
            is_one
        });
    }

    /// Gives up the first bytes, `count` at most, unless they were given up before.
    pub(crate) fn lose_first(&mut self, count: u32) {
        let Some(first) = self.pieces.first().copied().filter(|first| first.fate == Fate::Sent) else { return };
        if first.len() > count {
            self.split(0, first.start.wrapping_add(count));
        }
        self.pieces[0].fate = Fate::Lost;
    }

    /// Gives up the last bytes on their way, `count` at most.
    pub(crate) fn lose_last(&mut self, count: u32) {
        let Some(mut at) = self.pieces.iter().rposition(|piece| matches!(piece.fate, Fate::Sent | Fate::Again { .. })) else { return };
        if self.pieces[at].len() > count {
            self.split(at, self.pieces[at].end.wrapping_sub(count));
            at += 1;
        }
        self.pieces[at].fate = Fate::Lost;
    }

    /// Gives up everything, also what is said to have arrived: the sandbox may have thrown it away (RFC 2018 8).
    pub(crate) fn lose_all(&mut self) {
        let (Some(first), Some(last)) = (self.pieces.first(), self.pieces.last()) else { return };
        let all = Piece { start: first.start, end: last.end, fate: Fate::Lost };
        self.pieces.clear();
        self.pieces.push(all);
        (self.latest, self.latest_again) = (all.start, (self.turns, all.start));
    }

    /// The first bytes to send again.
    pub(crate) fn next_lost(&self) -> Option<(u32, u32)> {
        self.pieces.iter().find(|piece| piece.fate == Fate::Lost).map(|piece| (piece.start, piece.end))
    }

    /// Of the lost bytes from `from` on, `count` left again, when new ones had reached `reached`.
    pub(crate) fn send_again(&mut self, from: u32, count: u32, reached: u32) {
        let Some(at) = self.pieces.iter().position(|piece| piece.start == from && piece.fate == Fate::Lost) else { return };
        if self.pieces[at].len() > count {
            self.split(at, from.wrapping_add(count));
        }
        self.turns += 1;
        self.pieces[at].fate = Fate::Again { turn: self.turns, reached };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As it is, in a line: each piece's length and fate.
    fn drawn(board: &Scoreboard) -> String {
        let letter = |fate| match fate {
            Fate::Sent => 's',
            Fate::Again { .. } => 'a',
            Fate::Arrived => 'A',
            Fate::Lost => 'L',
        };
        board.pieces.iter().map(|piece| format!("{}{}", piece.len(), letter(piece.fate))).collect::<Vec<_>>().join(" ")
    }

    fn board(first: u32, count: u32) -> Scoreboard {
        let mut board = Scoreboard::default();
        board.begin(first, first.wrapping_add(count));
        board
    }

    #[test]
    fn what_was_overtaken_is_lost_and_no_more() {
        // Numbers wrap in the middle.
        let first = 0u32.wrapping_sub(450);
        let at = |offset: u32| first.wrapping_add(offset);
        let mut board = board(first, 1000);
        assert!(board.arrive(at(300), at(400)) && board.arrive(at(500), at(600)));
        assert!(!board.arrive(at(300), at(400)), "that is no news");
        board.lose_overtaken();
        assert_eq!(drawn(&board), "300L 100A 100L 100A 400s");
        assert_eq!((board.pipe(), board.arrived(), board.next_lost()), (400, 200, Some((at(0), at(300)))));
        board.send_again(at(0), 100, at(1000));
        board.send_again(at(100), 200, at(1000));
        board.send_again(at(400), 100, at(1000));
        board.extend(at(1200));
        assert_eq!(drawn(&board), "100a 200a 100A 100a 100A 600s");
        // The second of the three arrives: the first is lost again; so are bytes sent once before it.
        assert!(board.arrive(at(100), at(300)));
        board.lose_overtaken();
        assert_eq!(drawn(&board), "100L 300A 100a 100A 400L 200s");
        // New bytes arrive that left after the third.
        assert!(board.arrive(at(1100), at(1200)));
        board.lose_overtaken();
        assert_eq!(drawn(&board), "100L 300A 100L 100A 500L 100A");
        board.acknowledge(at(1200));
        assert!(board.is_empty());
    }

    #[test]
    fn an_acknowledgement_settles_what_it_covers() {
        let mut board = board(100, 1000);
        board.lose_first(100);
        board.lose_first(100);
        assert_eq!(drawn(&board), "100L 900s", "given up once");
        board.send_again(100, 100, 1100);
        board.acknowledge(150);
        assert_eq!(drawn(&board), "50a 900s");
        board.acknowledge(250);
        assert!(board.is_empty(), "the rest is on its way for the first time");
    }

    #[test]
    fn the_end_and_everything_can_be_given_up() {
        let mut board = board(0, 1000);
        assert!(board.arrive(950, 1000));
        board.lose_last(100);
        assert_eq!(drawn(&board), "850s 100L 50A");
        board.send_again(850, 100, 1000);
        board.lose_all();
        assert_eq!(drawn(&board), "1000L");
        board.send_again(0, 10, 1000);
        board.lose_overtaken();
        assert_eq!(drawn(&board), "10a 990L");
    }

    #[test]
    fn lies_change_nothing() {
        let mut board = board(1000, 1000);
        for (from, to) in [(900, 1100), (1900, 2001), (1500, 1400), (1500, 1500), (0, 100), (3000, 4000), (1000, 0x8000_1000), (u32::MAX, 1001)] {
            assert!(!board.arrive(from, to), "{from}..{to}");
        }
        assert_eq!(drawn(&board), "1000s");
    }

    #[test]
    fn crumbs_are_limited() {
        let mut board = board(0, 100_000);
        for number in 0..50_000 {
            board.arrive(number * 2, number * 2 + 1);
        }
        assert!(board.pieces.len() <= MOST_PIECES + 1);
    }

    proptest! {
        #[test]
        fn pieces_stay_whole_and_in_order(first in any::<u32>(), steps in prop::collection::vec((0u8..8, 0u32..3000, 0u32..3000), 1..200)) {
            let mut board = Scoreboard::default();
            let (mut una, mut max) = (first, first.wrapping_add(1000));
            for (kind, a, b) in steps {
                let (from, to) = (una.wrapping_add(a), una.wrapping_add(b));
                board.begin(una, max);
                match kind {
                    0 => { board.arrive(from, to); }
                    1 => board.lose_overtaken(),
                    2 => board.lose_first(a.max(1)),
                    3 => board.lose_last(a.max(1)),
                    4 => board.lose_all(),
                    5 => if let Some((start, end)) = board.next_lost() { board.send_again(start, end.wrapping_sub(start).min(b.max(1)), max) },
                    6 => { max = max.wrapping_add(a.max(1)); board.extend(max); }
                    _ => { una = una.wrapping_add(a.min(max.wrapping_sub(una))); board.acknowledge(una); }
                }
                if let (Some(head), Some(tail)) = (board.pieces.first(), board.pieces.last()) {
                    prop_assert_eq!((head.start, tail.end), (una, max));
                    prop_assert!(board.pieces.iter().all(|piece| before(piece.start, piece.end)), "{}", drawn(&board));
                    prop_assert!(board.pieces.windows(2).all(|pair| pair[0].end == pair[1].start));
                }
            }
        }
    }
}
