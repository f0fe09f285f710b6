//! The log of the program: its filter and its form.

use clap::Args;
use std::str::FromStr;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// See the module.
#[derive(Debug, Default, Args)]
pub(crate) struct LogArgs {
    /// Log on standard error: error, warn, info, debug or trace, or PART=LEVEL; json writes each line as a JSON object.
    /// Several with commas between them
    #[arg(long, value_name = "WHAT")]
    pub log: Option<LogSetting>,
}

/// The value of `--log`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LogSetting {
    /// What is logged, in the language of [`EnvFilter`]. `None` if the user has named no level.
    pub filter: Option<String>,
    /// Whether each line is a JSON object.
    pub json: bool,
}

impl FromStr for LogSetting {
    type Err = String;

    /// A word alone that is no level would be the name of a part, and log nothing if there is no such part.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (json, filters): (Vec<_>, Vec<_>) = text.split(',').partition(|part| *part == "json");
        let is_understood = |part: &&str| {
            let has_level = part.contains('=') || part.parse::<LevelFilter>().is_ok();
            !part.is_empty() && has_level && EnvFilter::builder().parse(part).is_ok()
        };
        match filters.iter().all(is_understood) {
            true => Ok(Self {
                filter: (!filters.is_empty()).then(|| filters.join(",")),
                json: !json.is_empty(),
            }),
            false => Err(
                "write error, warn, info, debug, trace or off, or PART=LEVEL, for example debug_worker=debug, or json; several with commas between them"
                    .to_owned(),
            ),
        }
    }
}

/// Begins to log. Without a filter of the user, `RUST_LOG` is the filter, and without this variable, warnings are logged.
pub(crate) fn begin(setting: &LogSetting) {
    begin_with(&filter(setting), setting.json);
}

fn filter(setting: &LogSetting) -> String {
    let environment = || std::env::var(EnvFilter::DEFAULT_ENV);
    match &setting.filter {
        Some(filter) => filter.clone(),
        None => environment().unwrap_or_default(),
    }
}

/// The word before the filter of a worker whose log is JSON.
#[cfg(feature = "gdb")]
const JSON: &str = "json ";

/// The setting in the form in which a worker, which has no environment, gets it.
#[cfg(feature = "gdb")]
pub(crate) fn for_worker(setting: &LogSetting) -> String {
    let form = if setting.json { JSON } else { "" };
    format!("{form}{}", filter(setting))
}

/// Begins to log in a worker.
#[cfg(feature = "gdb")]
pub(crate) fn begin_in_worker(setting: &str) {
    match setting.strip_prefix(JSON) {
        Some(filter) => begin_with(filter, true),
        None => begin_with(setting, false),
    }
}

fn begin_with(filter: &str, json: bool) {
    let builder = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into());
    let filter = builder.parse_lossy(filter);
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match json {
        true => log.json().init(),
        false => {
            let to_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            log.with_ansi(to_terminal).init();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(filter: Option<&str>, json: bool) -> LogSetting {
        let filter = filter.map(str::to_owned);
        LogSetting { filter, json }
    }

    #[test]
    fn a_log_without_sense_is_refused_with_what_to_write() {
        for text in [
            "",
            "bogus",
            "bogus=bogus",
            "info,",
            "debug_worker=loud",
            "json,",
        ] {
            let error = text.parse::<LogSetting>().expect_err(text);
            assert!(error.contains("PART=LEVEL"), "{error}");
        }
    }

    #[test]
    fn the_filter_and_the_form_are_told_apart() {
        for (text, expected) in [
            ("info", setting(Some("info"), false)),
            ("rsp=trace,warn", setting(Some("rsp=trace,warn"), false)),
            ("off", setting(Some("off"), false)),
            ("json", setting(None, true)),
            (
                "debug_worker=debug,json,warn",
                setting(Some("debug_worker=debug,warn"), true),
            ),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }
}
