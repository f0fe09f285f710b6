//! A private apt: gets packages and sources of Debian suites that this machine does not use, and does not change this machine's package lists.
//!
//! apt checks signatures and checksums. Nothing is installed: packages are downloaded and unpacked into a folder.

use crate::process;
use crate::system_packages::CannotHere;
use anyhow::Context as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// The variable that names the Debian mirror on machines whose apt is set up for another distribution.
const MIRROR_VARIABLE: &str = "TRAPGATE_DEBIAN_MIRROR";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A separate configuration of apt below a cache folder, with fresh lists.
pub(crate) struct Apt {
    config: PathBuf,
}

impl Apt {
    /// Sets up the release of this machine below `folder` and fetches the package lists.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        Self::check()?;
        let source = Source::of_this_machine()?;
        Self::set_up(&folder.join("apt"), &source, Installed::OnThisMachine)
    }

    /// Sets up another Debian release, for which no package counts as installed. A package therefore comes with all its dependencies.
    pub(crate) fn of_suite(folder: &Path, suite: &str) -> anyhow::Result<Self> {
        Self::check()?;
        let mut source = Source::of_this_machine()?;
        source.suites = vec![suite.to_owned()];
        Self::set_up(
            &folder.join(format!("apt-{suite}")),
            &source,
            Installed::Nothing,
        )
    }

    fn check() -> anyhow::Result<()> {
        if process::find_program("apt-get").is_none() || process::find_program("dpkg-deb").is_none()
        {
            return Err(CannotHere(
                "no apt-get and dpkg-deb here: the nested bed and the newer debuggers come from Debian's archive; run this on Debian, Ubuntu or in a Debian container".to_owned(),
            )
            .into());
        }
        Ok(())
    }

    fn set_up(state: &Path, source: &Source, installed: Installed) -> anyhow::Result<Self> {
        for sub in ["sources", "state/lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(state.join(sub))?;
        }
        std::fs::write(state.join("sources/debian.sources"), source.deb822())?;
        let config = state.join("apt.conf");
        let status = match installed {
            Installed::OnThisMachine => PathBuf::from("/var/lib/dpkg/status"),
            Installed::Nothing => {
                let status = state.join("nothing-installed");
                std::fs::write(&status, "")?;
                status
            }
        };
        std::fs::write(&config, configuration(state, &status))?;
        let apt = Self { config };
        println!(
            "xtask: fetching package lists ({}, {})",
            source.mirror,
            source.suites.join(" ")
        );
        process::capture(apt.command("apt-get").args(["-q", "update"]))?;
        Ok(apt)
    }

    /// The version of `package` that `wanted` accepts. If `wanted` accepts several, the first one that apt lists, which is the highest.
    pub(crate) fn version(
        &self,
        package: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> anyhow::Result<(String, String)> {
        let text = process::capture(self.command("apt-cache").args(["show", package]))?;
        pick(&text, wanted).with_context(|| format!("no usable version of {package} in Debian"))
    }

    /// The same as [`Self::version`] for a source package.
    pub(crate) fn source_version(
        &self,
        package: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> anyhow::Result<String> {
        let text = process::capture(self.command("apt-cache").args(["showsrc", package]))?;
        let (version, _) = pick(&text, wanted)
            .with_context(|| format!("no usable source version of {package} in Debian"))?;
        Ok(version)
    }

    /// Downloads a binary package (`name` or `name=version`) and unpacks it into `folder`.
    pub(crate) fn unpack(&self, package: &str, folder: &Path) -> anyhow::Result<()> {
        println!("xtask: downloading {package}");
        let downloads = folder.join("download");
        std::fs::create_dir_all(&downloads)?;
        process::capture(
            self.command("apt-get")
                .args(["-q", "download", package])
                .current_dir(&downloads),
        )?;
        extract_all(&downloads, folder)
    }

    /// Downloads binary packages and all their dependencies, and unpacks them into `folder`.
    pub(crate) fn unpack_with_dependencies(
        &self,
        packages: &[&str],
        folder: &Path,
    ) -> anyhow::Result<()> {
        println!(
            "xtask: downloading {} and what they depend on",
            packages.join(", ")
        );
        let downloads = folder.join("download");
        std::fs::create_dir_all(downloads.join("partial"))?;
        process::capture(
            self.command("apt-get")
                .args(["-q", "-y", "--no-install-recommends", "--download-only"])
                .arg("-o")
                .arg(format!("Dir::Cache::archives={}", downloads.display()))
                .arg("install")
                .args(packages),
        )?;
        extract_all(&downloads, folder)
    }

    /// Downloads the upstream tarball of a source package into `folder` and returns the file.
    pub(crate) fn source_tarball(
        &self,
        package: &str,
        version: &str,
        folder: &Path,
    ) -> anyhow::Result<PathBuf> {
        println!("xtask: downloading the source of {package} {version}");
        process::capture(
            self.command("apt-get")
                .args(["-q", "source", "--download-only", "--tar-only"])
                .arg(format!("{package}={version}"))
                .current_dir(folder),
        )?;
        std::fs::read_dir(folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.to_string_lossy().contains(".orig.tar"))
            .with_context(|| format!("apt-get downloaded no upstream tarball of {package}"))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.config).env("LC_ALL", "C");
        command
    }
}

/// Unpacks each package in `downloads` into `folder` and removes `downloads`.
fn extract_all(downloads: &Path, folder: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(downloads)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            process::capture(
                Command::new("dpkg-deb")
                    .arg("--extract")
                    .arg(path)
                    .arg(folder),
            )?;
        }
    }
    std::fs::remove_dir_all(downloads)?;
    Ok(())
}

/// Which packages apt counts as installed.
#[derive(Clone, Copy)]
enum Installed {
    OnThisMachine,
    Nothing,
}

/// Moves all files of apt that could change this machine below `state`. The machine's own settings, such as proxies, stay in force.
fn configuration(state: &Path, status: &Path) -> String {
    let (state, status) = (state.display(), status.display());
    format!(
        "Dir::Etc::SourceList \"/dev/null\";\n\
         Dir::Etc::SourceParts \"{state}/sources\";\n\
         Dir::State \"{state}/state\";\n\
         Dir::State::status \"{status}\";\n\
         Dir::Cache \"{state}/cache\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
         APT::Sandbox::User \"root\";\n"
    )
}

/// The version and the `Depends` of the first stanza whose version `wanted` accepts.
fn pick(stanzas: &str, wanted: impl Fn(&str) -> bool) -> Option<(String, String)> {
    stanzas.split("\n\n").find_map(|stanza| {
        let version = field(stanza, "Version")?;
        wanted(&version).then(|| (version, field(stanza, "Depends").unwrap_or_default()))
    })
}

/// A one-line field of a deb822 stanza.
fn field(stanza: &str, name: &str) -> Option<String> {
    stanza.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name)
            .then(|| value.trim().to_owned())
    })
}

/// The archive from which this machine gets Debian's packages.
#[derive(Debug, PartialEq)]
struct Source {
    mirror: String,
    suites: Vec<String>,
    signed_by: String,
}

impl Source {
    fn of_this_machine() -> anyhow::Result<Self> {
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let value = |name: &str| {
            release
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
                .map(|value| value.trim_matches('"').to_owned())
        };
        if let Ok(mirror) = std::env::var(MIRROR_VARIABLE) {
            // Debian 13 has the required versions of the kernel and of QEMU.
            return Ok(Self {
                mirror,
                suites: vec!["trixie".to_owned()],
                signed_by: KEYRING.to_owned(),
            });
        }
        if value("ID").as_deref() != Some("debian") {
            return Err(CannotHere(format!(
                "this is not Debian: install the package `debian-archive-keyring` and set {MIRROR_VARIABLE} to the address of a Debian mirror"
            ))
            .into());
        }
        let codename = value("VERSION_CODENAME").context("/etc/os-release names no codename")?;
        let (mirror, signed_by) = configured_mirror(&codename)
            .ok_or_else(|| CannotHere(format!("no apt source with the suite {codename}: set {MIRROR_VARIABLE} to the address of a Debian mirror")))?;
        let mut suites = vec![codename.clone()];
        if codename == "bookworm" {
            suites.push("bookworm-backports".to_owned());
        }
        Ok(Self {
            mirror,
            suites,
            signed_by: signed_by.unwrap_or_else(|| KEYRING.to_owned()),
        })
    }

    fn deb822(&self) -> String {
        format!(
            "Types: deb deb-src\nURIs: {}\nSuites: {}\nComponents: main\nSigned-By: {}\n",
            self.mirror,
            self.suites.join(" "),
            self.signed_by
        )
    }
}

fn configured_mirror(codename: &str) -> Option<(String, Option<String>)> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = std::fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.sort();
    files.iter().find_map(|file| {
        let text = std::fs::read_to_string(file).ok()?;
        match file.extension()?.to_str()? {
            "sources" => mirror_in_deb822(&text, codename),
            "list" => mirror_in_one_line(&text, codename),
            _ => None,
        }
    })
}

fn mirror_in_deb822(text: &str, codename: &str) -> Option<(String, Option<String>)> {
    text.split("\n\n").find_map(|stanza| {
        let stanza: String = stanza
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| format!("{line}\n"))
            .collect();
        let has = |name, word: &str| {
            field(&stanza, name)
                .is_some_and(|value| value.split_whitespace().any(|part| part == word))
        };
        if !has("Types", "deb")
            || !has("Suites", codename)
            || field(&stanza, "Enabled").as_deref() == Some("no")
        {
            return None;
        }
        let mirror = field(&stanza, "URIs")?
            .split_whitespace()
            .next()?
            .to_owned();
        // A key block of several lines is not a file name. The archive's keyring file is used instead.
        let signed_by = field(&stanza, "Signed-By").filter(|value| value.starts_with('/'));
        Some((mirror, signed_by))
    })
}

fn mirror_in_one_line(text: &str, codename: &str) -> Option<(String, Option<String>)> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let mirror = words.next()?;
        if words.next()? != codename {
            return None;
        }
        let signed_by = options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="))
            .filter(|value| value.starts_with('/'));
        Some((mirror.to_owned(), signed_by.map(str::to_owned)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_read_from_deb822_sources() {
        let text = "Types: deb\n# a comment\nURIs: http://mirror.test/security\nSuites: bookworm-security\nComponents: main\n\n\
                    Types: deb\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\nSigned-By: /keys/k.gpg\n";
        assert_eq!(
            mirror_in_deb822(text, "bookworm"),
            Some((
                "http://mirror.test/debian".to_owned(),
                Some("/keys/k.gpg".to_owned())
            ))
        );
        assert_eq!(mirror_in_deb822(text, "trixie"), None);
    }

    #[test]
    fn the_mirror_is_read_from_one_line_sources() {
        let text = "# deb http://off.test bookworm main\ndeb-src http://src.test bookworm main\n\
                    deb [arch=amd64 signed-by=/keys/k.gpg] http://mirror.test/debian bookworm main\n";
        assert_eq!(
            mirror_in_one_line(text, "bookworm"),
            Some((
                "http://mirror.test/debian".to_owned(),
                Some("/keys/k.gpg".to_owned())
            ))
        );
        assert_eq!(mirror_in_one_line(text, "trixie"), None);
    }

    #[test]
    fn a_version_is_picked_by_what_it_is_wanted_for() {
        let text = "Package: qemu\nVersion: 1:7.2+dfsg-7\n\nPackage: qemu\nVersion: 1:10.0.2+ds-2\nDepends: a, b\n";
        assert_eq!(
            pick(text, |version| version.starts_with("1:10.")),
            Some(("1:10.0.2+ds-2".to_owned(), "a, b".to_owned()))
        );
        assert_eq!(pick(text, |version| version.starts_with("1:11.")), None);
    }
}
