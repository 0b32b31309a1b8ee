//! Dates of milliseconds since 1970, in UTC.

/// A moment taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    pub year: i64,
    /// From 1.
    pub month: u32,
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    pub millisecond: u32,
    /// 0 is Sunday.
    pub weekday: u32,
}

const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl Date {
    pub fn of_ms(ms: i64) -> Date {
        let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
        // Years that begin in March put the leap day last; eras of 400 such years are all alike.
        let from_march = days + 719_468;
        let (era, day_of_era) = (from_march.div_euclid(146_097), from_march.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Date {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month: month as u32,
            day: (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u32,
            hour: (of_day / 3_600_000) as u32,
            minute: (of_day / 60_000 % 60) as u32,
            second: (of_day / 1000 % 60) as u32,
            millisecond: (of_day % 1000) as u32,
            weekday: (days + 4).rem_euclid(7) as u32,
        }
    }

    /// As `java.util.Date#toString`: `Fri Nov 20 17:13:48 UTC 2026`.
    pub fn java(&self) -> String {
        let Date { year, day, hour, minute, second, .. } = self;
        let (weekday, month) = (WEEKDAYS[self.weekday as usize], MONTHS[self.month as usize - 1]);
        format!("{weekday} {month} {day:02} {hour:02}:{minute:02}:{second:02} UTC {year}")
    }

    /// As HTTP has it: `Fri, 20 Nov 2026 17:13:48 GMT`.
    pub fn http(&self) -> String {
        let Date { year, day, hour, minute, second, .. } = self;
        let (weekday, month) = (WEEKDAYS[self.weekday as usize], MONTHS[self.month as usize - 1]);
        format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT")
    }

    /// As ZooKeeper's log has it: `2025-01-31 12:00:00,123`.
    pub fn log(&self) -> String {
        let Date { year, month, day, hour, minute, second, millisecond, .. } = self;
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02},{millisecond:03}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_the_odd_days() {
        for (ms, java, log) in [
            (0, "Thu Jan 01 00:00:00 UTC 1970", "1970-01-01 00:00:00,000"),
            (-1, "Wed Dec 31 23:59:59 UTC 1969", "1969-12-31 23:59:59,999"),
            (951_782_400_000, "Tue Feb 29 00:00:00 UTC 2000", "2000-02-29 00:00:00,000"),
            (1_795_194_828_007, "Fri Nov 20 17:13:48 UTC 2026", "2026-11-20 17:13:48,007"),
            (4_107_542_399_999, "Sun Feb 28 23:59:59 UTC 2100", "2100-02-28 23:59:59,999"),
            (4_107_542_400_000, "Mon Mar 01 00:00:00 UTC 2100", "2100-03-01 00:00:00,000"),
        ] {
            assert_eq!(Date::of_ms(ms).java(), java);
            assert_eq!(Date::of_ms(ms).log(), log);
        }
    }

    #[test]
    fn http_dates() {
        assert_eq!(Date::of_ms(784_111_777_000).http(), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn days_follow_each_other() {
        let mut before = Date::of_ms(0);
        for day in 1..80_000i64 {
            let date = Date::of_ms(day * 86_400_000);
            let next_day =
                date.day == before.day + 1 && date.month == before.month && date.year == before.year;
            let next_month = date.day == 1 && date.month == before.month + 1 && date.year == before.year;
            let next_year =
                (date.day, date.month, before.month) == (1, 1, 12) && date.year == before.year + 1;
            assert!(next_day || next_month || next_year, "{before:?} {date:?}");
            assert_eq!(date.weekday, (before.weekday + 1) % 7);
            before = date;
        }
    }
}
