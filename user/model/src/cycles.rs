// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whether serving comes to an end: the search for a cycle among the steps that serve.
//!
//! Situations are finitely many, so what goes on for ever comes back to one of them. Where the steps of
//! serving have no cycle, every path of them ends, whichever way each choice falls.

/// Steps from situation to situation, by the number of the situation where they begin.
#[derive(Default)]
pub struct Edges {
    /// Where the steps of each situation end in `to`.
    ends: Vec<usize>,
    to: Vec<u32>,
}

impl Edges {
    /// A step of the situation that is at hand.
    pub fn push(&mut self, to: u32) {
        self.to.push(to);
    }

    /// No more steps of this situation; the next one's follow.
    pub fn end(&mut self) {
        self.ends.push(self.to.len());
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.to.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.to.is_empty()
    }

    fn of(&self, from: usize) -> &[u32] {
        let begin = from.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.to[begin..self.ends[from]]
    }

    /// A cycle, as the numbers of its situations in order; `None` if there is none.
    ///
    /// Takes away what nothing leads to, again and again, as a topological sort does. What remains has a
    /// predecessor that remains, so a walk backwards must come to where it was.
    #[must_use]
    pub fn cycle(&self) -> Option<Vec<u32>> {
        let count = self.ends.len();
        let mut leading = vec![0_u32; count];
        for to in &self.to {
            leading[*to as usize] += 1;
        }
        let mut free: Vec<usize> = (0..count).filter(|at| leading[*at] == 0).collect();
        let mut left = count;
        while let Some(at) = free.pop() {
            left -= 1;
            for to in self.of(at) {
                let to = *to as usize;
                leading[to] -= 1;
                if leading[to] == 0 {
                    free.push(to);
                }
            }
        }
        if left == 0 {
            return None;
        }
        let mut before = vec![u32::MAX; count];
        for from in (0..count).filter(|at| leading[*at] > 0) {
            for to in self.of(from) {
                before[*to as usize] = u32::try_from(from).unwrap_or(u32::MAX);
            }
        }
        let start = leading.iter().position(|leading| *leading > 0)?;
        let mut walk = vec![u32::try_from(start).ok()?];
        loop {
            let at = *walk.last()?;
            let previous = before[at as usize];
            if let Some(met) = walk.iter().position(|seen| *seen == previous) {
                let mut cycle = walk.split_off(met);
                cycle.reverse();
                return Some(cycle);
            }
            walk.push(previous);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Edges;

    fn edges(lists: &[&[u32]]) -> Edges {
        let mut edges = Edges::default();
        for list in lists {
            for to in *list {
                edges.push(*to);
            }
            edges.end();
        }
        edges
    }

    #[test]
    fn paths_that_meet_again_are_no_cycle() {
        assert_eq!(edges(&[&[1, 2], &[3], &[3], &[]]).cycle(), None);
    }

    #[test]
    fn a_cycle_is_told_in_its_order() {
        let mut cycle = edges(&[&[1], &[2, 4], &[3], &[1], &[]]).cycle().unwrap();
        let first = cycle.iter().position(|at| *at == 1).unwrap();
        cycle.rotate_left(first);
        assert_eq!(cycle, [1, 2, 3]);
    }

    #[test]
    fn a_step_that_changes_nothing_is_a_cycle() {
        assert_eq!(edges(&[&[1], &[1]]).cycle(), Some(vec![1]));
    }
}
