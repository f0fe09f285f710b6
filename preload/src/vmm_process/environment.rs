//! The variables of the environment: those of this process, and those of a program that takes its place.
//!
//! The array is read and changed directly, because a program may have a `getenv` and a `setenv` of its own, as bash has.

use crate::settings;
use std::ffi::CStr;
use std::ffi::CString;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::ffi::c_char;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::ffi::OsStringExt as _;
use std::ptr::null_mut;
use std::sync::OnceLock;

/// An array of `NAME=VALUE`, with a null pointer at its end. Linux takes a null pointer for an empty array.
pub(super) type Array = *const *const c_char;

unsafe extern "C" {
    static mut environ: *mut *const c_char;
}

/// What a program that takes the place of this one gets.
struct Kept {
    /// The path of the library.
    library: Vec<u8>,
    /// `NAME=VALUE` of each variable but those for `LD_PRELOAD`.
    variables: Vec<CString>,
}

static KEPT: OnceLock<Kept> = OnceLock::new();

/// The environment of this process.
pub(super) fn own() -> Array {
    // SAFETY: a pointer, which is read once.
    unsafe { (&raw const environ).read() }.cast_const()
}

/// # Safety
/// The array stays as it is for as long as the iterator is used.
unsafe fn entries(array: Array) -> impl Iterator<Item = &'static CStr> {
    let at = move |index| {
        // SAFETY: the indexes are taken in order, up to that of the null pointer.
        let entry = unsafe { *array.add(index) };
        // SAFETY: each entry of an environment is a string.
        (!entry.is_null()).then(|| unsafe { CStr::from_ptr(entry) })
    };
    (0..).map_while(move |index| (!array.is_null()).then(|| at(index)).flatten())
}

fn value_of<'a>(entry: &'a CStr, name: &str) -> Option<&'a [u8]> {
    let value = entry.to_bytes().strip_prefix(name.as_bytes())?;
    value.strip_prefix(b"=")
}

fn is_ours(entry: &CStr) -> bool {
    let mut ours = settings::OURS.iter();
    ours.any(|name| value_of(entry, name).is_some())
}

/// A variable of this process.
///
/// # Safety
/// No other thread changes the environment meanwhile.
pub(super) unsafe fn variable(name: &str) -> Option<&'static [u8]> {
    // SAFETY: the caller's.
    unsafe { entries(own()) }.find_map(|entry| value_of(entry, name))
}

/// Takes our variables away, so that the VMM's children do not see them, and keeps them for a program that takes the place of this one.
///
/// # Safety
/// Before `main`, on the only thread.
pub(super) unsafe fn take(ld_preload: Option<&OsStr>) {
    // SAFETY: the caller's.
    let ours = unsafe { entries(own()) }.filter(|entry| is_ours(entry));
    let is_for_linker = |entry: &CStr| value_of(entry, settings::LD_PRELOAD_BEFORE).is_some();
    let variables = ours
        .filter(|entry| !is_for_linker(entry))
        .map(CStr::to_owned)
        .collect();
    // SAFETY: the caller's.
    let preloaded = unsafe { variable(settings::LD_PRELOAD) }.unwrap_or_default();
    let library = preloaded.split(|byte| *byte == b':').next();
    let library = library.unwrap_or_default().to_vec();
    let _ = KEPT.set(Kept { library, variables });
    // SAFETY: the caller's. The array has room for as many entries as it has.
    unsafe { remove(own().cast_mut(), ld_preload) }
}

/// # Safety
/// As [`take`].
unsafe fn remove(array: *mut *const c_char, ld_preload: Option<&OsStr>) {
    // SAFETY: nothing changes the array but the loop, which writes before the place that the iterator reads next.
    let entries = unsafe { entries(array.cast_const()) };
    let mut left = 0;
    for entry in entries {
        let entry = match (value_of(entry, settings::LD_PRELOAD), ld_preload) {
            _ if is_ours(entry) => continue,
            (Some(_), None) => continue,
            (Some(_), Some(before)) => assignment(settings::LD_PRELOAD, before).as_ptr(),
            (None, _) => entry.as_ptr(),
        };
        // SAFETY: `left` is at most the index of the entry.
        unsafe { array.add(left).write(entry) };
        left += 1;
    }
    // SAFETY: the array has an entry or the null pointer here.
    unsafe { array.add(left).write(null_mut()) };
}

/// Stays for the life of the process, as every entry of the environment may.
fn assignment(name: &str, value: &OsStr) -> &'static CStr {
    let mut text = OsString::from(name);
    text.push("=");
    text.push(value);
    // The value was an entry of the environment, so it has no zero byte.
    Box::leak(
        CString::new(text.into_vec())
            .unwrap_or_default()
            .into_boxed_c_str(),
    )
}

/// The environment for a program that takes the place of this one, with the library. Its memory is not from the heap: a signal handler may call `execve`.
pub(super) struct Environment {
    region: *mut u8,
    length: usize,
}

impl Environment {
    /// As the program has chosen `array`, and with our variables. `None` if there is nothing to add, if `array` has variables of another `trapgate exec`, or if the
    /// host gives no memory.
    ///
    /// # Safety
    /// `array` is an environment, and stays as it is while the value exists.
    pub(super) unsafe fn with_library(array: Array) -> Option<Self> {
        let kept = KEPT.get()?;
        let mut count = 0;
        let mut before: &[u8] = b"";
        // SAFETY: the caller's.
        for entry in unsafe { entries(array) } {
            if is_ours(entry) {
                return None;
            }
            count += 1;
            // The dynamic linker takes the last one.
            before = value_of(entry, settings::LD_PRELOAD).unwrap_or(before);
        }
        let preload = [settings::LD_PRELOAD.as_bytes(), b"=", &kept.library];
        let with_before: [&[u8]; 2] = match before {
            b"" => [b"", b""],
            before => [b":", before],
        };
        let former = [settings::LD_PRELOAD_BEFORE.as_bytes(), b"=", before];
        // Two strings with their zero bytes, and the two and the null pointer in the array.
        let texts: usize = [&preload[..], &with_before, &former]
            .iter()
            .flat_map(|parts| parts.iter())
            .map(|part| part.len())
            .sum();
        let pointers = count + kept.variables.len() + 3;
        let pointer_bytes = pointers * size_of::<*const c_char>();
        let environment = Self::new(pointer_bytes + texts + 2)?;
        // SAFETY: the region has this size, and is aligned to a page.
        let mut place = unsafe { environment.region.add(pointer_bytes) };
        let mut text = |parts: &mut dyn Iterator<Item = &&[u8]>| {
            let begin = place.cast_const().cast::<c_char>();
            for part in parts {
                // SAFETY: the region has room for all parts, and for a zero byte, which is there already, behind each text.
                unsafe {
                    place.copy_from_nonoverlapping(part.as_ptr(), part.len());
                    place = place.add(part.len());
                }
            }
            // SAFETY: as above.
            place = unsafe { place.add(1) };
            begin
        };
        let preload = text(&mut preload.iter().chain(&with_before));
        let former = text(&mut former.iter());
        let kept = kept.variables.iter().map(|entry| entry.as_ptr());
        // SAFETY: the caller's.
        let others = unsafe { entries(array) }
            .filter(|entry| value_of(entry, settings::LD_PRELOAD).is_none())
            .map(CStr::as_ptr);
        let former = (!before.is_empty()).then_some(former);
        let all = kept.chain([preload]).chain(former).chain(others);
        for (index, entry) in all.enumerate() {
            // SAFETY: the array has room for all entries and for the null pointer, which is there already.
            unsafe { environment.array().cast_mut().add(index).write(entry) };
        }
        Some(environment)
    }

    fn new(length: usize) -> Option<Self> {
        // SAFETY: the kernel chooses the address, so no memory of the process is replaced.
        let region = unsafe {
            libc::mmap(
                null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        (region != libc::MAP_FAILED).then(|| Self {
            region: region.cast(),
            length,
        })
    }

    pub(super) fn array(&self) -> Array {
        self.region.cast_const().cast()
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        // SAFETY: the region was mapped with this length, and nobody uses it after a call that has failed.
        unsafe { libc::munmap(self.region.cast(), self.length) };
    }
}

/// The settings that `trapgate exec` has set for this process.
///
/// # Safety
/// As [`take`].
pub(super) unsafe fn settings() -> Option<settings::Settings> {
    settings::Settings::read(|name| {
        // SAFETY: the caller's.
        let value = unsafe { variable(name) };
        value.map(|value| OsStr::from_bytes(value).to_owned())
    })
}
