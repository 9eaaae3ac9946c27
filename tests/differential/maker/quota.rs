//! Quotas: made, changed, and read, for what the server has counted can be seen in their stats nodes alone.

use super::{
    super::operation::{Entry, Field, Operation, Place},
    Maker,
    vocabulary::{LIMITS, SOFT, UNDER_QUOTA},
};
use zkfast_wire::OpCode;

const LEAVES: [&str; 2] = ["/zookeeper_limits", "/zookeeper_stats"];

impl Maker {
    /// A quota, from a multi that makes its nodes to a change of them.
    pub(super) fn quota(&mut self) -> Operation {
        let under = self.pick(UNDER_QUOTA);
        self.quota_of(under)
    }

    pub(super) fn quota_of(&mut self, under: &str) -> Operation {
        let at = |name: &str| Field::Path(Place::Quota(format!("{under}{name}")));
        let limits = if self.has_hard_quotas { &LIMITS[SOFT..] } else { &LIMITS[..SOFT] };
        let limit = self.pick(limits);
        let text = |text: &str| Field::Data(Some(text.as_bytes().to_vec()));
        let leaf = self.pick(&LEAVES);
        if self.quotas.contains(&format!("{under}{}", LEAVES[1])) && !self.dice.one_in(12) {
            return match self.dice.below(12) {
                0 => Operation::new(
                    OpCode::SetData,
                    vec![at(LEAVES[0]), text(limit), Field::Int("version", -1)],
                ),
                1 => {
                    self.quotas.retain(|known| *known != format!("{under}{leaf}"));
                    Operation::new(OpCode::Delete, vec![at(leaf), Field::Int("version", -1)])
                }
                2 | 3 => Operation::new(
                    self.pick(&[OpCode::GetData, OpCode::GetData, OpCode::Exists]),
                    vec![at(leaf), Field::Watch(self.dice.one_in(3))],
                ),
                _ => self.counts(),
            };
        }
        let mut fields = Vec::new();
        let parents =
            UNDER_QUOTA.iter().filter(|name| under.starts_with(**name)).map(|name| (*name).to_owned());
        for name in parents.chain(LEAVES.map(|leaf| format!("{under}{leaf}"))) {
            if self.quotas.contains(&name) {
                continue;
            }
            let data = if name.ends_with("limits") { limit } else { "count=0,bytes=0" };
            let open = vec![Entry { perms: 31, scheme: Some("world"), id: Some("anyone") }];
            fields.push(Field::Part(OpCode::Create.to_i32()));
            fields.push(Field::Path(Place::Quota(name.clone())));
            fields.extend([text(data), Field::Acl(Some(open)), Field::Int("flags", 0)]);
            self.quotas.push(name);
        }
        fields.push(Field::End);
        Operation::new(OpCode::Multi, fields)
    }

    /// All that the server has counted, at once.
    fn counts(&mut self) -> Operation {
        let mut fields = Vec::new();
        for name in self.quotas.iter().filter(|name| name.ends_with(LEAVES[1])) {
            fields.push(Field::Part(OpCode::GetData.to_i32()));
            fields.push(Field::Path(Place::Quota(name.clone())));
            fields.push(Field::Watch(false));
        }
        fields.push(Field::End);
        Operation::new(OpCode::MultiRead, fields)
    }
}
