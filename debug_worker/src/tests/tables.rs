//! The tables of GDB's `info os`.

use super::bed::Bed;

/// The values of the rows, with a bar between them.
fn rows(reply: &str) -> Vec<String> {
    let rows = reply.split("<item>").skip(1);
    rows.map(|row| {
        let row = row.split("</item>").next().unwrap_or_default();
        let values = row.split("<column ").skip(1);
        let value = |column: &str| {
            let (_, value) = column.split_once('>').expect("a name");
            value.trim_end_matches("</column>").to_owned()
        };
        values.map(value).collect::<Vec<_>>().join("|")
    })
    .collect()
}

#[test]
fn each_table_of_the_list_has_rows() {
    let bed = Bed::new();
    let mut client = bed.attach();
    let mut table = |name: &str| rows(&client.ask(&format!("qXfer:osdata:read:{name}:0,2000")));
    let names: Vec<_> = table("")
        .iter()
        .map(|row| row.split('|').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(names, ["vcpus", "breakpoints", "memory"]);
    let vps = table("vcpus");
    assert!(vps[0].starts_with("0|1|halted"), "{vps:?}");
    assert!(vps[1].starts_with("1|2|"), "{vps:?}");
    let breakpoints = table("breakpoints");
    assert_eq!(
        breakpoints,
        [
            "0x1000|software|1|12|10|in memory, physical 0x1234",
            "0x1000|software|1|12|10|debug register 2",
            "0x1000|software|1|12|10|NOT ARMED: no writable RAM is there, and no debug register is free",
            "0x2000|software|1|12|0|removed",
        ]
    );
    let memory = table("memory");
    assert!(memory[0].starts_with("0x0|0x"), "{memory:?}");
}

#[test]
fn a_table_that_the_vm_does_not_give_is_an_error() {
    let bed = Bed::with(crate::SessionSettings {
        rpc_deadline: std::time::Duration::from_millis(50),
        ..Default::default()
    });
    let mut client = bed.attach();
    bed.vm.mute("ram ranges");
    // 110 in hex.
    assert_eq!(client.ask("qXfer:osdata:read:memory:0,2000"), "E6e");
    bed.vm.mute("");
    assert_eq!(client.ask("qXfer:osdata:read:threads:0,2000"), "E16");
}
