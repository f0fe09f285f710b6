//! The target description: a register table as XML (GDB manual, appendix "Target Descriptions").

use crate::regs::Group;
use crate::regs::Layout;
use crate::regs::Reg;
use crate::regs::types::Type;
use std::fmt::Write;
use std::sync::OnceLock;

/// The target description of a layout.
///
/// The OS ABI is `none`, because the guest's kernel is the program. With GDB's default, GNU/Linux, GDB would look for a
/// dynamic linker and ignore the relocations that the server reports.
pub(crate) fn target_xml(layout: Layout) -> &'static str {
    static DOCUMENTS: [OnceLock<String>; Layout::COUNT] =
        [const { OnceLock::new() }; Layout::COUNT];
    DOCUMENTS[layout.index()].get_or_init(|| write(layout))
}

fn write(layout: Layout) -> String {
    let mut xml = String::from(
        "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n<target version=\"1.0\">\n",
    );
    line(
        &mut xml,
        format_args!("<architecture>{}</architecture>", layout.architecture()),
    );
    line(&mut xml, format_args!("<osabi>none</osabi>"));
    for regs in layout
        .table()
        .chunk_by(|one, next| one.feature == next.feature)
    {
        line(
            &mut xml,
            format_args!("<feature name=\"{}\">", regs[0].feature),
        );
        let mut defined = Vec::new();
        for reg in regs {
            define(&mut xml, reg.ty, &mut defined);
        }
        for reg in regs {
            register(&mut xml, reg);
        }
        line(&mut xml, format_args!("</feature>"));
    }
    line(&mut xml, format_args!("</target>"));
    xml
}

/// Defines a type and the types of its parts, unless the type is predefined or already defined in this feature.
fn define(xml: &mut String, ty: &'static Type, defined: &mut Vec<&'static str>) {
    if defined.contains(&ty.id()) {
        return;
    }
    match ty {
        Type::Predefined(_) => return,
        Type::Vector { element, .. } => define(xml, element, defined),
        Type::Union { members, .. } => {
            for (_, member) in *members {
                define(xml, member, defined);
            }
        }
        Type::Flags { .. } => {}
    }
    defined.push(ty.id());
    match ty {
        Type::Predefined(_) => {}
        Type::Vector { id, element, count } => line(
            xml,
            format_args!(
                "<vector id=\"{id}\" type=\"{}\" count=\"{count}\"/>",
                element.id()
            ),
        ),
        Type::Union { id, members } => {
            line(xml, format_args!("<union id=\"{id}\">"));
            for (name, member) in *members {
                line(
                    xml,
                    format_args!("<field name=\"{name}\" type=\"{}\"/>", member.id()),
                );
            }
            line(xml, format_args!("</union>"));
        }
        Type::Flags { id, bytes, fields } => {
            line(xml, format_args!("<flags id=\"{id}\" size=\"{bytes}\">"));
            for field in *fields {
                line(
                    xml,
                    format_args!(
                        "<field name=\"{}\" start=\"{}\" end=\"{}\"/>",
                        field.name, field.start, field.end
                    ),
                );
            }
            line(xml, format_args!("</flags>"));
        }
    }
}

fn register(xml: &mut String, reg: &Reg) {
    // GDB must not save and restore system registers around a call of a guest function, because they switch modes or
    // page tables.
    let group = match reg.group {
        Group::ByType => "",
        Group::Float => " group=\"float\"",
        Group::Vector => " group=\"vector\"",
        Group::System => " group=\"system\" save-restore=\"no\"",
    };
    line(
        xml,
        format_args!(
            "<reg name=\"{}\" bitsize=\"{}\" type=\"{}\" regnum=\"{}\"{group}/>",
            reg.name,
            reg.bits,
            reg.ty.id(),
            reg.num.0
        ),
    );
}

fn line(xml: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(xml, "{text}").expect("writing to a string does not fail");
}
