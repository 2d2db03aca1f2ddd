//! Lengths of time as people write them: `30m`, `8h`, `2d`.

use std::str::FromStr;

/// A length of time, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(crate) struct Length {
    pub(crate) seconds: i64,
}

/// Units from the longest.
const UNITS: [(&str, i64); 4] = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];

impl FromStr for Length {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is no length of time: write 30m, 8h or 2d");
        let split = |(unit, factor)| Some((text.strip_suffix(unit)?, factor));
        let (digits, factor) = UNITS.into_iter().find_map(split).ok_or_else(refused)?;
        let number: u32 = digits.parse().map_err(|_| refused())?;
        if number == 0 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refused());
        }
        Ok(Self {
            seconds: i64::from(number) * factor,
        })
    }
}

impl std::fmt::Display for Length {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whole = |(_, factor): &(&str, i64)| self.seconds % factor == 0;
        let (unit, factor) = UNITS.into_iter().find(whole).unwrap_or(("s", 1));
        write!(f, "{}{unit}", self.seconds / factor)
    }
}

/// How long ago, in the two words that matter: `3m12s`, `5h`, `12d`.
pub(crate) fn age(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if minutes < 10 && minutes > 0 && seconds % 60 > 0 => {
            format!("{minutes}m{}s", seconds % 60)
        }
        () if minutes == 0 => format!("{seconds}s"),
        () if hours < 3 => format!("{minutes}m"),
        () if days < 3 => format!("{hours}h"),
        () => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_and_said_as_people_write_them() {
        let read = [("45s", 45), ("30m", 1800), ("8h", 28_800), ("2d", 172_800)];
        for (text, seconds) in read {
            let length: Length = text.parse().unwrap();
            assert_eq!(length.seconds, seconds, "{text}");
            assert_eq!(length.to_string(), text);
        }
        assert_eq!("24h".parse::<Length>().unwrap().to_string(), "1d");
        for wrong in [
            "",
            "h",
            "0h",
            "8",
            "-1h",
            "1.5h",
            "8 h",
            "1hh",
            "99999999999d",
        ] {
            assert!(wrong.parse::<Length>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn ages_are_short() {
        let said = [
            (-5, "0s"),
            (59, "59s"),
            (192, "3m12s"),
            (120, "2m"),
            (900, "15m"),
            (7200, "120m"),
            (18_000, "5h"),
            (1_000_000, "11d"),
        ];
        for (seconds, text) in said {
            assert_eq!(age(seconds), text);
        }
    }
}
