//! What watching births said, as the recording has it.

use std::collections::BTreeMap;

use super::finite;
use super::heap::largest_request;
use crate::census::types::{ToldBy, TypeName};
use crate::diagnose::rank::{Allocated, AllocatedClass};
use crate::diagnose::survivors::ClassGrowth;
use crate::report::escape::text_of;
use crate::report::model::{SiteAllocations, SiteClass, UnnamedClass};

/// What became of a call site's blocks.
#[must_use]
pub fn of_site(allocated: &Allocated) -> SiteAllocations {
    SiteAllocations {
        blocks: whole(allocated.blocks),
        births: allocated.births,
        born_blocks: allocated.born_blocks,
        born_bytes: allocated.born_bytes,
        followed: allocated.followed,
        survived: allocated.survived,
        young: allocated.young,
        doubtful: allocated.doubtful,
        median_age_seconds: allocated.median_age.and_then(finite),
        oldest_age_seconds: allocated.oldest_age.and_then(finite),
        classes: allocated.classes.iter().map(class).collect(),
        functions: allocated.functions.iter().map(|&name| name.to_owned()).collect(),
    }
}

fn class(class: &AllocatedClass) -> SiteClass {
    SiteClass {
        bytes: class.request,
        chunk_bytes: class.chunk_bytes,
        type_name: class.type_name.clone(),
        mapped: class.mapped,
        blocks: whole(class.blocks),
        live_bytes: whole(class.bytes),
        survivors: class.survivors,
    }
}

/// A type as the recording calls it; with `&` the constant that is no class's, whose address the blocks begin with.
#[must_use]
pub fn type_name(name: &TypeName) -> String {
    let of_constant = match name.told_by {
        ToldBy::ConstantSymbol => "&",
        ToldBy::Rtti | ToldBy::VtableSymbol => "",
    };
    format!("{of_constant}{}", text_of(name.name.as_bytes()))
}

/// Classes that nobody is known for, in the order given. `names` are those of the constants that blocks begin with; what
/// has none stands by its size.
#[must_use]
pub fn unnamed(classes: &[ClassGrowth], names: &BTreeMap<u64, TypeName>) -> Vec<UnnamedClass> {
    classes
        .iter()
        .map(|growth| {
            let class = growth.class;
            let name = class.constant.and_then(|constant| names.get(&constant));
            UnnamedClass {
                bytes: largest_request(class.chunk_bytes, class.mapped),
                chunk_bytes: class.chunk_bytes,
                type_name: name.map(type_name),
                growth_count: growth.count,
                growth_bytes: growth.bytes,
            }
        })
        .collect()
}

/// Adds another process's rows: those of one class become one. The greatest first.
pub fn join(rows: &mut Vec<UnnamedClass>, others: Vec<UnnamedClass>) {
    for other in others {
        let alike = |row: &&mut UnnamedClass| {
            (row.chunk_bytes, row.bytes, &row.type_name) == (other.chunk_bytes, other.bytes, &other.type_name)
        };
        match rows.iter_mut().find(alike) {
            Some(row) => {
                row.growth_count = row.growth_count.saturating_add(other.growth_count);
                row.growth_bytes = row.growth_bytes.saturating_add(other.growth_bytes);
            }
            None => rows.push(other),
        }
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.growth_bytes));
}

/// What was reckoned, as a whole number; at least 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and counts stay far under 2^52"
)]
fn whole(amount: f64) -> u64 {
    amount.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::births::cohorts::Class;

    #[test]
    fn estimates_become_whole_and_what_is_no_number_is_null() {
        let row = of_site(&Allocated {
            blocks: 10.6,
            median_age: Some(f64::NAN),
            oldest_age: Some(2.5),
            classes: vec![AllocatedClass {
                request: 40,
                chunk_bytes: 48,
                type_name: Some("T".into()),
                mapped: false,
                blocks: -0.2,
                bytes: 48.4,
                survivors: 3,
            }],
            functions: vec!["calloc"],
            ..Allocated::default()
        });
        assert_eq!(row.blocks, 11);
        assert_eq!(
            (row.median_age_seconds, row.oldest_age_seconds),
            (None, Some(2.5))
        );
        assert_eq!(
            (
                row.classes[0].blocks,
                row.classes[0].live_bytes,
                row.classes[0].bytes
            ),
            (0, 48, 40)
        );
        assert_eq!(row.functions, ["calloc"]);
    }

    #[test]
    fn an_unnamed_class_stands_by_its_request_and_its_type() {
        let growth = |chunk_bytes, constant| ClassGrowth {
            class: Class {
                chunk_bytes,
                constant,
                mapped: false,
            },
            count: 2,
            bytes: 2 * chunk_bytes.cast_signed(),
        };
        let name = |name: &str, told_by| TypeName {
            name: name.into(),
            told_by,
        };
        let names = [
            (7, name("Session", ToldBy::Rtti)),
            (9, name("kOps", ToldBy::ConstantSymbol)),
        ]
        .into();
        let rows = unnamed(
            &[growth(48, Some(7)), growth(4112, Some(8)), growth(32, Some(9))],
            &names,
        );
        let told: Vec<_> = rows
            .iter()
            .map(|row| (row.bytes, row.type_name.as_deref(), row.growth_bytes))
            .collect();
        assert_eq!(
            told,
            [
                (40, Some("Session"), 96),
                (4104, None, 8224),
                (24, Some("&kOps"), 64)
            ]
        );
    }
}
