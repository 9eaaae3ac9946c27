//! The table of watches: added, asked for, taken away, and set again after a reconnect.

use super::{
    super::operation::{Field, Operation, Place, Seen},
    Aim, Maker,
};
use zkfast_wire::{OpCode, Xid};

/// How many of the last steps that changed something setWatches looks back at.
const LOOK_BACK: usize = 4;

impl Maker {
    /// addWatch, checkWatches, removeWatches.
    pub(super) fn watch_table(&mut self) -> Operation {
        let op =
            self.pick(&[OpCode::AddWatch, OpCode::AddWatch, OpCode::CheckWatches, OpCode::RemoveWatches]);
        let kind = match op {
            OpCode::AddWatch if self.dice.one_in(20) => self.pick(&[2, -1, 7]),
            OpCode::AddWatch => self.pick(&[0, 1]),
            _ if self.dice.one_in(20) => self.pick(&[0, 6, -1]),
            _ => self.pick(&[1, 2, 3, 4, 5]),
        };
        let path = match op {
            // All below the root is watched there.
            OpCode::AddWatch if self.dice.one_in(10) => Field::Path(Place::Absolute("/".into())),
            OpCode::AddWatch => self.read_path(),
            // Where there are watches, if they are remembered rightly.
            _ => match self.watched.is_empty() || self.dice.one_in(4) {
                true => self.read_path(),
                false => Field::Path(self.watched[self.dice.below(self.watched.len())].clone()),
            },
        };
        Operation::new(op, vec![path, Field::Int("kind", kind)])
    }

    /// Notes where a request leaves a watch: the last few are enough.
    pub(super) fn note_watch(&mut self, operation: &Operation) {
        /// Paths that are remembered.
        const WATCHED_MAX: usize = 12;
        let leaves_one =
            operation.op() == Some(OpCode::AddWatch) || operation.fields.get(1) == Some(&Field::Watch(true));
        if let (true, Some(Field::Path(place))) = (leaves_one, operation.fields.first()) {
            if self.watched.len() == WATCHED_MAX {
                self.watched.remove(0);
            }
            self.watched.push(place.clone());
        }
    }

    /// Notes what a request may change, for setWatches of later steps.
    pub(super) fn note_changes(&mut self, operations: &[Operation]) {
        let writes = operations.iter().filter(|operation| operation.is_write());
        let names = writes.flat_map(|operation| &operation.fields).filter_map(|field| match field {
            Field::Path(Place::Below(name)) => Some(name.clone()),
            _ => None,
        });
        let names = names.collect();
        self.changes.push(names);
    }

    /// setWatches and setWatches2.
    ///
    /// What a client missed and what it saw differ by one zxid. So the zxid is often that of a step that changed
    /// something, or of the one before it, and the lists name what that step changed.
    pub(super) fn set_watches(&mut self) -> Operation {
        let op = self.pick(&[OpCode::SetWatches, OpCode::SetWatches2]);
        let mut lists: Vec<(&'static str, Vec<Place>)> =
            ["data", "exist", "child"].map(|name| (name, Vec::new())).into();
        if op == OpCode::SetWatches2 {
            lists.extend(["persistent", "recursive"].map(|name| (name, Vec::new())));
        }
        for (_, places) in &mut lists {
            for _ in 0..self.pick(&[0, 0, 1, 2, 4]) {
                if let Field::Path(place) = self.read_path()
                    && place != Place::Null
                {
                    places.push(place);
                }
            }
        }
        let recent: Vec<usize> = (0..self.changes.len())
            .rev()
            .filter(|step| !self.changes[*step].is_empty())
            .take(LOOK_BACK)
            .collect();
        let zxid = if recent.is_empty() || self.dice.one_in(4) {
            match self.dice.below(4) {
                0 => Seen::Exactly(0),
                1 => Seen::Exactly(i64::MAX),
                _ => Seen::StepsAgo(self.dice.below(30)),
            }
        } else {
            let step = self.pick(&recent);
            for name in self.changes[step].clone() {
                if let Some((parent, _)) = name.rsplit_once('/') {
                    lists[2].1.push(Place::Below(parent.to_owned()));
                }
                let list = self.pick(&[0, 0, 0, 1, 2]);
                lists[list].1.push(Place::Below(name));
            }
            Seen::StepsAgo(self.changes.len() - 1 - step + usize::from(self.dice.one_in(3)))
        };
        let mut fields = vec![Field::Zxid(zxid)];
        fields.extend(lists.into_iter().map(|(name, places)| Field::Paths(name, places)));
        let mut operation = Operation::new(op, fields);
        operation.xid = Some(Xid::SET_WATCHES.0);
        operation
    }

    /// What begins as the ephemerals of the own session do, or not.
    pub(super) fn prefix(&mut self) -> Place {
        match self.dice.below(8) {
            0 => Place::Absolute(self.pick(&[" ", "/", "", "\t"]).into()),
            1 => Place::Null,
            2 => self.valid(Aim::Existing),
            _ => match self.guess.owned(self.slot, &mut self.dice) {
                // Cut anywhere: it is a prefix of text, not of names.
                Some(name) => {
                    let cuts: Vec<usize> =
                        name.char_indices().map(|(at, _)| at).chain([name.len()]).collect();
                    Place::Below(name[..cuts[self.dice.below(cuts.len())]].to_owned())
                }
                None => self.valid(Aim::Existing),
            },
        }
    }
}
