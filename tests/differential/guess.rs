//! What the maker of a stream believes that the tree looks like, so that most requests meet the node that they want:
//! a stream whose operations fail by chance compares errors and little else.
//!
//! It is no model. It takes each request for granted, is wrong after a refusal, and finds back by itself: what it takes
//! for there and is not is forgotten with the next delete, what it takes for absent and is not is known again with the
//! next create.

use super::{
    operation::{Field, Place},
    peers::Dice,
};
use std::collections::BTreeMap;
use zkfast_wire::OpCode;

#[derive(Clone, Copy, Default)]
struct Node {
    version: i32,
    aversion: i32,
    /// Whose session's end deletes it.
    owner: Option<usize>,
}

/// The nodes below a stream's root, by the rest of their path; "" is the root itself.
pub struct Guess(BTreeMap<String, Node>);

impl Guess {
    /// The root alone.
    pub fn new() -> Self {
        Self(BTreeMap::from([(String::new(), Node::default())]))
    }

    /// A node that should be there.
    pub fn existing(&self, dice: &mut Dice) -> String {
        let at = dice.below(self.0.len());
        self.0.keys().nth(at).cloned().unwrap_or_default()
    }

    /// One without children that is not the root.
    pub fn leaf(&self, dice: &mut Dice) -> Option<String> {
        let leaves: Vec<&String> =
            self.0.keys().filter(|name| !name.is_empty() && !self.has_children(name)).collect();
        (!leaves.is_empty()).then(|| leaves[dice.below(leaves.len())].clone())
    }

    /// One of `names` that should be absent and can be created.
    pub fn absent(&self, names: &[&str], dice: &mut Dice) -> Option<String> {
        let can_be = |name: &&&str| {
            let parent = name.rsplit_once('/').and_then(|(parent, _)| self.0.get(parent));
            !self.0.contains_key(**name) && parent.is_some_and(|parent| parent.owner.is_none())
        };
        let absent: Vec<&&str> = names.iter().filter(can_be).collect();
        (!absent.is_empty()).then(|| (*absent[dice.below(absent.len())]).to_owned())
    }

    /// Version of the data, or of the list if `is_list`.
    pub fn version(&self, path: Option<&Field>, is_list: bool) -> Option<i32> {
        let Some(Field::Path(Place::Below(name))) = path else { return None };
        let node = self.0.get(name)?;
        Some(if is_list { node.aversion } else { node.version })
    }

    /// An ephemeral of session `slot`.
    pub fn owned(&self, slot: usize, dice: &mut Dice) -> Option<String> {
        let owned: Vec<&String> =
            self.0.iter().filter(|(_, node)| node.owner == Some(slot)).map(|(name, _)| name).collect();
        (!owned.is_empty()).then(|| owned[dice.below(owned.len())].clone())
    }

    /// Takes a request of session `slot` for done.
    pub fn note(&mut self, slot: usize, op: OpCode, fields: &[Field]) {
        let Some(Field::Path(Place::Below(name))) = fields.first() else { return };
        let flags = fields.iter().find_map(|field| match field {
            Field::Int("flags", flags) => Some(*flags),
            _ => None,
        });
        match (op, flags) {
            (OpCode::Delete, _) if !name.is_empty() && !self.has_children(name) => {
                self.0.remove(name);
            }
            (OpCode::SetData, _) => {
                self.0.entry(name.clone()).and_modify(|node| node.version += 1);
            }
            (OpCode::SetAcl, _) => {
                self.0.entry(name.clone()).and_modify(|node| node.aversion += 1);
            }
            (_, Some(0 | 1 | 4 | 5)) => {
                let owner = (flags == Some(1)).then_some(slot);
                self.0.entry(name.clone()).or_insert(Node { owner, ..Node::default() });
            }
            _ => {}
        }
    }

    /// The session of `slot` ended.
    pub fn end(&mut self, slot: usize) {
        self.0.retain(|_, node| node.owner != Some(slot));
    }

    fn has_children(&self, name: &str) -> bool {
        let prefix = format!("{name}/");
        self.0.range(prefix.clone()..).next().is_some_and(|(next, _)| next.starts_with(&prefix))
    }
}

/// Danger: a maker that believes nonsense makes streams of refusals, and they look busy.
#[test]
fn what_is_asked_is_believed() {
    let mut dice = Dice::new(3);
    let mut guess = Guess::new();
    let path = |name: &str| vec![Field::Path(Place::Below(name.into()))];
    let create = |name: &str, flags| vec![path(name).remove(0), Field::Int("flags", flags)];
    guess.note(0, OpCode::Create, &create("/a", 0));
    guess.note(0, OpCode::Create, &create("/a/e", 1));
    guess.note(0, OpCode::Create2, &create("/a/s", 2));
    guess.note(0, OpCode::SetData, &path("/a"));
    assert_eq!(guess.version(path("/a").first(), false), Some(1));
    assert_eq!(guess.leaf(&mut dice).as_deref(), Some("/a/e"));
    // Below an ephemeral node there is nothing to create, and nothing below what is absent.
    assert_eq!(guess.absent(&["/a", "/a/e/x", "/b/x", "/b"], &mut dice).as_deref(), Some("/b"));
    guess.note(1, OpCode::Delete, &path("/a"));
    assert_eq!(guess.version(path("/a").first(), true), Some(0), "it has a child");
    guess.end(0);
    guess.note(1, OpCode::Delete, &path("/a"));
    assert_eq!(guess.existing(&mut dice), "");
}
