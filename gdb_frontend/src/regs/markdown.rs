//! The register table as a page for people.

use super::Group;
use super::Layout;
use crate::regs::types::Type;
use std::fmt::Write;

/// A layout as a table in Markdown, for the Guide.
pub(crate) fn markdown(layout: Layout) -> String {
    let mut page =
        String::from("| number | name | bits | type | group |\n|---:|---|---:|---|---|\n");
    for regs in layout
        .table()
        .chunk_by(|one, next| one.feature == next.feature)
    {
        writeln!(page, "| | **`{}`** | | | |", regs[0].feature)
            .expect("writing to a string does not fail");
        for reg in regs {
            let group = match (reg.group, reg.ty) {
                (Group::System, _) => "system",
                (Group::Float, _) => "float",
                (Group::Vector, _) | (_, Type::Union { .. } | Type::Vector { .. }) => "vector",
                (Group::ByType, _) => "",
            };
            writeln!(
                page,
                "| {} | `{}` | {} | {} | {group} |",
                reg.num.0,
                reg.name,
                reg.bits,
                reg.ty.id()
            )
            .expect("writing to a string does not fail");
        }
    }
    page
}
