//! The crates whose types appear in the signatures of a library.

use anyhow::Context as _;
use serde_json::Value;
use std::collections::BTreeSet;

/// Permitted in every library.
const STANDARD: &[&str] = &["std", "core", "alloc"];

/// The permitted crates of each library. A program that uses the library needs the same major version of these crates, so each entry is a decision.
const PERMITTED: &[(&str, &[&str])] = &[
    ("debug_client", &["agent_expr", "vmm_core_defs"]),
    ("debug_wire", &["pal_async", "vmm_core_defs"]),
    (
        "debug_worker",
        &["anyhow", "mesh", "pal_async", "vmm_core_defs"],
    ),
    // The traits of streams and sockets.
    ("mesh", &["anyhow", "futures_core"]),
    ("pal_async", &["async_task", "futures_io"]),
    // `bytes` only with the feature `wire`.
    ("vmm_core_defs", &["bytes", "mesh", "serde_core"]),
    ("vp_runner", &["mesh", "vmm_core_defs"]),
];

/// Returns one sentence for each type that is not permitted.
pub(super) fn check(library: &str, json: &Value) -> anyhow::Result<Vec<String>> {
    let permitted = PERMITTED.iter().find(|(name, _)| *name == library);
    let permitted = permitted.map_or(&[][..], |(_, crates)| crates);
    let items = json["index"].as_object();
    let items = items.context("rustdoc's JSON has no `index`: its format has changed")?;
    let mut found = BTreeSet::new();
    for item in items.values() {
        names(&item["inner"], &mut |id| {
            let path = &json["paths"][id.to_string()];
            let of = &json["external_crates"][path["crate_id"].to_string()]["name"];
            let Some(of) = of.as_str() else {
                // The library's own crate.
                return;
            };
            if !STANDARD.contains(&of) && !permitted.contains(&of) {
                let parts = path["path"].as_array().into_iter().flatten();
                let parts: Vec<_> = parts.filter_map(Value::as_str).collect();
                let name = item["name"].as_str().unwrap_or("an impl");
                found.insert(format!(
                    "{library}: `{name}` has `{}` in its signature",
                    parts.join("::")
                ));
            }
        });
    }
    Ok(found.into_iter().collect())
}

/// Calls `see` with the id of each type and trait in a part of an item.
fn names(part: &Value, see: &mut impl FnMut(u64)) {
    match part {
        Value::Object(fields) => {
            // The `impl<T> Trait for T` of another crate applies to every type, and is not part of this interface.
            if fields.get("blanket_impl").is_some_and(|of| !of.is_null()) {
                return;
            }
            if let (Some(id), true) = (
                fields.get("id").and_then(Value::as_u64),
                fields.contains_key("path") && fields.contains_key("args"),
            ) {
                see(id);
            }
            fields.values().for_each(|field| names(field, see));
        }
        Value::Array(parts) => parts.iter().for_each(|part| names(part, see)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn library(inner: &Value) -> Value {
        json!({
            "index": { "1": { "name": "run", "inner": inner } },
            "paths": {
                "5": { "crate_id": 0, "path": ["vp_runner", "VmHandle"] },
                "6": { "crate_id": 3, "path": ["mesh", "channel", "Sender"] },
                "7": { "crate_id": 8, "path": ["kvm_ioctls", "ioctls", "vcpu", "VcpuFd"] },
            },
            "external_crates": {
                "3": { "name": "mesh" },
                "8": { "name": "kvm_ioctls" },
            },
        })
    }

    fn with(id: u64, blanket: &Value) -> Vec<String> {
        let path = json!({ "path": "X", "id": id, "args": null });
        let inner =
            json!({ "impl": { "blanket_impl": blanket, "for": [{ "resolved_path": path }] } });
        check("vp_runner", &library(&inner)).unwrap()
    }

    #[test]
    fn a_type_of_a_crate_that_is_not_permitted_is_found_wherever_it_stands() {
        assert_eq!(
            with(7, &Value::Null),
            ["vp_runner: `run` has `kvm_ioctls::ioctls::vcpu::VcpuFd` in its signature"]
        );
    }

    #[test]
    fn own_types_permitted_crates_and_impls_for_every_type_are_not_found() {
        assert!(with(5, &Value::Null).is_empty());
        assert!(with(6, &Value::Null).is_empty());
        assert!(with(7, &json!({ "generic": "T" })).is_empty());
    }

    #[test]
    fn a_json_of_another_form_is_no_pass() {
        assert!(check("vp_runner", &json!({})).is_err());
    }
}
