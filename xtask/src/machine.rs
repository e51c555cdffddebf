//! The machine that was measured, and the date.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fs};

/// What is stated beside every figure.
pub(crate) struct Machine {
    /// The CPU's model name, without commas.
    pub(crate) cpu: String,
    /// The date in UTC, such as 2026-01-31.
    pub(crate) date: String,
}

impl Machine {
    /// This machine, today.
    pub(crate) fn of_today() -> Self {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let cpu = model_name().unwrap_or_else(|| format!("unknown {}", env::consts::ARCH));
        Self { cpu: cpu.replace(',', " "), date: date(seconds / 86_400) }
    }

    /// The name of the files of this run: letters, digits and dashes.
    pub(crate) fn stem(&self) -> String {
        let words = self.cpu.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        let cpu: Vec<String> = words.map(str::to_ascii_lowercase).collect();
        format!("{}-{}", cpu.join("-"), self.date)
    }
}

/// The model name as reported by Linux on x86 and by macOS.
fn model_name() -> Option<String> {
    if let Ok(text) = fs::read_to_string("/proc/cpuinfo") {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        return Some(line.split_once(':')?.1.trim().into());
    }
    let output = Command::new("sysctl").args(["-n", "machdep.cpu.brand_string"]).output().ok()?;
    let name = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!name.is_empty()).then_some(name)
}

/// The civil date of a number of days after 1970-01-01.
fn date(mut days: u64) -> String {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let months = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= months[month] {
        days -= months[month];
        month += 1;
    }
    format!("{year}-{:02}-{:02}", month + 1, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (days, want) in [
            (0, "1970-01-01"),
            (364, "1970-12-31"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_453, "2025-12-31"),
            (20_454, "2026-01-01"),
        ] {
            assert_eq!(date(days), want);
        }
    }

    #[test]
    fn a_stem_is_a_file_name() {
        let machine = Machine { cpu: "Intel(R) Xeon(R) @ 2.0GHz".into(), date: "2026-01-31".into() };
        assert_eq!(machine.stem(), "intel-r-xeon-r-2-0ghz-2026-01-31");
    }
}
