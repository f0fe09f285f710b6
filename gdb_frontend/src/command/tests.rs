use super::*;
use crate::packets::supported;
use crate::target::BreakpointKind;
use proptest::prelude::*;

fn parse(packet: &str) -> Result<Command<'_>, CommandError> {
    Command::parse(packet.as_bytes())
}

fn assert_malformed(packets: &[&str]) {
    for packet in packets {
        assert!(
            matches!(parse(packet), Err(CommandError::Syntax(_))),
            "{packet}: {:?}",
            parse(packet)
        );
    }
}

#[test]
fn numbers_are_hex_of_64_bits_at_most() {
    assert_eq!(syntax::number(b"0"), Some(0));
    assert_eq!(syntax::number(b"00000000000000000000fF"), Some(0xff));
    assert_eq!(syntax::number(b"ffffffffffffffff"), Some(u64::MAX));
    assert_eq!(syntax::number(b"10000000000000000"), None);
    for bad in [&b""[..], b"-1", b"0x10", b"1 ", b"g"] {
        assert_eq!(syntax::number(bad), None);
    }
}

#[test]
fn bytes_are_two_digits_each() {
    assert_eq!(syntax::bytes(b"00fFa5"), Some(vec![0, 0xff, 0xa5]));
    assert_eq!(syntax::bytes(b""), Some(vec![]));
    for bad in [&b"0"[..], b"000", b"0g", b"xx", b"+1"] {
        assert_eq!(syntax::bytes(bad), None, "{bad:?}");
    }
}

#[test]
fn malformed_packets_say_what_the_form_is() {
    assert_malformed(&[
        "p",
        "pg",
        "P1",
        "P=00",
        "P1=0",
        "P1=zz",
        "m",
        "m0",
        "m0,",
        "m,1",
        "m0;1",
        "mg,1",
        "m0,10000000000000000",
        "x0",
        "M0,1",
        "M0,1:",
        "M0,1:0",
        "M0,1:zz",
        "M0,1:0000",
        "X0,1:",
        "X0,2:a",
        "X0,1:}",
        "qCRC",
        "qCRC:",
        "qCRC:0",
        "qCRC:0,0",
        "qCRC:0;1",
        "qCRC:x,1",
        "qCRC:0,10000000000000000",
        "qSearch:memory:",
        "qSearch:memory:0;1",
        "qSearch:memory:0;1;",
        "qSearch:memory:0;0;a",
        "qSearch:memory:0;1;}",
        "qSearch:memory:0,1;a",
        "qSearch:memory:0;10000000000000000;a",
        "cg",
        "s-1",
        "C",
        "Cg",
        "C05;",
        "S",
        "vCont;",
        "vCont",
        "vCont;c;s",
        "vCont;x",
        "vCont;t1",
        "QNonStop",
        "QNonStop:2",
        "vCont;c:",
        "vCont;c:p1.1",
        "vCont;r",
        "vCont;r2,1",
        "vCont;C",
        "vCont;c:100000000",
        "Z",
        "Z0",
        "Z0,1",
        "Z5,0,1",
        "Z00,0,1",
        "z9,0,1",
        "Zx,0,1",
        "H",
        "Hg",
        "Hx1",
        "Hgx",
        "T",
        "T0",
        "T-1",
        "Tx",
        "qThreadExtraInfo",
        "qThreadExtraInfo,",
        "qThreadExtraInfo,0",
        "qXfer:features:read",
        "qXfer:features:read:target.xml",
        "qXfer:features:read:target.xml:0",
        "qXfer:features:read:other.xml:0,10",
        "qXfer:threads:read:x:0,1",
        "qXfer:exec-file:read:x:0,1",
        "vRun",
        "vRun;6",
        "vRun;zz",
        "vAttach",
        "vAttach;2",
        "vAttach;",
        "qRcmd",
        "qRcmd,6",
        "qRcmd,zz",
    ]);
}

#[test]
fn what_nobody_knows_is_unknown() {
    for packet in [
        "",
        "!x",
        "R",
        "Rx",
        "qExecAndArgs:",
        "gg",
        "?x",
        "vMustReplyEmpty",
        "vFile:stat:00",
        "vFile:open",
        "qOffsets",
        "qSymbol::",
        "qXfer:auxv:read::0,1",
        "qSearch",
        "qSearch:memory",
        "qXfer",
        "qXfer:features:write:target.xml:0:x",
        "vCtrlC?",
        "\u{7f}",
    ] {
        assert_eq!(parse(packet), Ok(Command::Unknown), "{packet}");
    }
}

#[test]
fn ranges_that_wrap_are_told_apart() {
    assert_eq!(parse("Mffffffffffffffff,2:0000"), Err(CommandError::Wraps));
    assert_eq!(parse("Xfffffffffffffffe,3:abc"), Err(CommandError::Wraps));
    assert_eq!(parse("Z2,ffffffffffffffff,8"), Err(CommandError::Wraps));
    assert_eq!(
        parse("qSearch:memory:2;ffffffffffffffff;a"),
        Err(CommandError::Wraps)
    );
    assert!(parse("qSearch:memory:1;ffffffffffffffff;a").is_ok());
    assert_eq!(parse("qCRC:ffffffffffffffff,2"), Err(CommandError::Wraps));
    assert!(parse("qCRC:ffffffffffffffff,1").is_ok());
    assert!(parse("Mffffffffffffffff,1:00").is_ok());
    assert!(parse("Z0,ffffffffffffffff,1").is_ok());
}

#[test]
fn binary_writes_resolve_escapes() {
    let expect = |packet: &[u8], data: &[u8]| {
        assert_eq!(
            Command::parse(packet),
            Ok(Command::WriteMemory {
                address: 0x10,
                data: data.into()
            })
        );
    };
    expect(b"X10,0:", b"");
    expect(b"X10,3:a:b", b"a:b");
    expect(b"X10,4:}\x03}\x04}]}\x0a", b"#$}*");
    expect(b"X10,3:a}]b", b"a}b");
}

#[test]
fn a_pattern_resolves_escapes_and_may_contain_separators() {
    assert_eq!(
        Command::parse(b"qSearch:memory:10;20;;:,}\x03"),
        Ok(Command::SearchMemory {
            address: 0x10,
            len: 0x20,
            pattern: b";:,#".into(),
        })
    );
}

#[test]
fn breakpoints_have_kind_address_and_length() {
    let breakpoint = Breakpoint {
        kind: BreakpointKind::Access,
        address: 0xffff_ffff_8100_0000,
        len: 8,
    };
    assert_eq!(
        parse("Z4,ffffffff81000000,8"),
        Ok(Command::InsertBreakpoint {
            breakpoint,
            conditions: Vec::new(),
            commands: Vec::new(),
        })
    );
    assert_eq!(
        parse("z4,ffffffff81000000,8"),
        Ok(Command::RemoveBreakpoint(breakpoint))
    );
}

#[test]
fn a_breakpoint_has_any_number_of_conditions_and_commands() {
    let conditions = |packet| match parse(packet) {
        Ok(Command::InsertBreakpoint { conditions, .. }) => Ok(conditions),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    };
    assert_eq!(conditions("Z0,0,1;"), Ok(vec![]));
    let one = vec![0x22, 0, 0x27];
    assert_eq!(conditions("Z0,0,1;X3,220027"), Ok(vec![one.clone()]));
    // GDB puts nothing between conditions, or a semicolon.
    for packet in ["Z1,0,1;X3,220027X1,27", "Z1,0,1;X3,220027;X1,27"] {
        assert_eq!(conditions(packet), Ok(vec![one.clone(), vec![0x27]]));
    }
    for wrong in [
        "X3,2200",
        "X3,22002",
        "X,27",
        "X3",
        "Xffffffffffffffff,27",
        "X2,2z00",
        "Y1,27",
    ] {
        let packet = format!("Z0,0,1;{wrong}");
        let refused = Command::parse(packet.as_bytes());
        assert!(matches!(refused, Err(CommandError::Syntax(_))), "{packet}");
    }
    let both = |packet| match parse(packet) {
        Ok(Command::InsertBreakpoint {
            conditions,
            commands,
            ..
        }) => (conditions, commands),
        other => panic!("{other:?}"),
    };
    let end = vec![0x27];
    assert_eq!(
        both("Z0,0,1;X1,27;cmds:1,X1,27X3,220027"),
        (vec![end.clone()], vec![end.clone(), one.clone()])
    );
    assert_eq!(both("Z0,0,1;cmds:0,X1,27"), (vec![], vec![end]));
    for wrong in [
        "cmds",
        "cmds:",
        "cmds:1",
        "cmds:x,X1,27",
        "cmds:1,cmds:1,X1,27",
        "cmds:1,X2,27",
    ] {
        let packet = format!("Z0,0,1;{wrong}");
        let refused = Command::parse(packet.as_bytes());
        assert!(matches!(refused, Err(CommandError::Syntax(_))), "{packet}");
    }
    assert!(matches!(
        parse("z0,0,1;X1,27"),
        Err(CommandError::Syntax(_))
    ));
}

#[test]
fn vcont_keeps_the_order_of_its_actions() {
    let resume = VContAction::Resume;
    let one = |id| ThreadSelector::One(Tid::new(id).unwrap());
    assert_eq!(
        parse("vCont;s:1;r10,20:a;t:2;C05:0;c:-1"),
        Ok(Command::VCont(VCont {
            actions: vec![
                (resume(ResumeAction::Step), one(1)),
                (
                    resume(ResumeAction::StepRange {
                        start: 0x10,
                        end: 0x20
                    }),
                    one(10)
                ),
                (VContAction::Stop, one(2)),
                (resume(ResumeAction::Continue), ThreadSelector::Any),
                (resume(ResumeAction::Continue), ThreadSelector::All),
            ]
        }))
    );
    assert_eq!(
        parse("vCont;r5,5"),
        Ok(Command::VCont(VCont {
            actions: vec![(resume(ResumeAction::Step), ThreadSelector::All)]
        }))
    );
}

#[test]
fn client_features_are_taken_only_with_a_plus() {
    let Ok(Command::Supported(Some(features))) = parse(
        "qSupported:multiprocess+;swbreak+;hwbreak-;error-message+;no-resumed+;xmlRegisters=i386",
    ) else {
        panic!("not understood");
    };
    assert!(features.swbreak && !features.hwbreak && features.error_message);
    assert!(features.expands_runs);
    assert!(supported(features, false).contains("error-message+"));
    assert!(!supported(ClientFeatures::default(), false).contains("error-message"));
}

#[test]
fn every_announced_feature_is_there() {
    for feature in supported(ClientFeatures::default(), true).split(';') {
        let proof = match feature {
            "PacketSize=40000" | "swbreak+" | "hwbreak+" => continue,
            "QStartNoAckMode+" => "QStartNoAckMode",
            "vContSupported+" => "vCont?",
            "QNonStop+" => "QNonStop:1",
            "binary-upload+" => "x0,1",
            "MultiMemRead+" => "MultiMemRead:ranges:0,1;",
            "jMultiBreakpoint+" => "jMultiBreakpoint:{\"breakpoint_requests\":[]}",
            "ConditionalBreakpoints+" => "Z0,0,1;X3,220127",
            "BreakpointCommands+" => "Z0,0,1;cmds:1,X1,27",
            "qXfer:features:read+" => "qXfer:features:read:target.xml:0,10",
            "ConditionalTracepoints+" => "QTDP:1:1000:E:0:0:X3,220127",
            "TracepointSource+" => "QTDPsrc:1:1000:cmd:0:1:61",
            "EnableDisableTracepoints+" => "QTEnable:1:1000",
            "QTBuffer:size+" => "QTBuffer:size:-1",
            "tracenz+" => "QTDP:-1:1000:X4,22012f27",
            "qXfer:traceframe-info:read+" => "qXfer:traceframe-info:read::0,10",
            "qXfer:osdata:read+" => "qXfer:osdata:read::0,10",
            "qXfer:exec-file:read+" => "qXfer:exec-file:read::0,10",
            "qXfer:threads:read+" => "qXfer:threads:read::0,10",
            _ => panic!("{feature} is announced, and nothing shows that it is there"),
        };
        assert!(
            !matches!(parse(proof), Ok(Command::Unknown) | Err(_)),
            "{feature} is announced, but {proof} gives {:?}",
            parse(proof)
        );
    }
}

proptest! {
    #[test]
    fn any_packet_is_parsed_without_a_panic(packet in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = Command::parse(&packet);
    }

    #[test]
    fn packets_that_look_right_are_parsed_without_a_panic(
        name in proptest::sample::select(vec![
            "p", "P", "m", "M", "x", "X", "c", "C", "Z", "z", "H", "T", "vCont;", "qXfer:", "qRcmd,",
            "qThreadExtraInfo,", "qSupported:", "vKill;", "vRun;", "vAttach;", "vFile:open:", "vFile:pread:", "qSearch:memory:", "qXfer:features:read:target.xml:", "QTDP:", "QTDP:-", "QTDPsrc:", "QTFrame:", "QTro:", "QTBuffer:size:", "qTBuffer:", "QTDP:1:2:E:0:0:", "QTDP:-1:2:",
        ]),
        rest in "[0-9a-f,:;=crsSXMRFE}*-]{0,40}",
    ) {
        let _ = Command::parse(format!("{name}{rest}").as_bytes());
    }
}
