//! Every drop has a name and is counted once: the reasons of a crate, in one table.

/// Makes an enumeration of reasons and its counters. Each row: variant, stable name, why in words for people (its
/// documentation too).
#[macro_export]
macro_rules! drop_reasons {
    ($(#[$reason_doc:meta])* $reason:ident, $(#[$counters_doc:meta])* $counters:ident { $($variant:ident => $name:literal, $text:literal;)+ }) => {
        $(#[$reason_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $reason {
            $(#[doc = $text] $variant,)+
        }

        impl $reason {
            /// All reasons, in counter order.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Stable name for views, captures and scripts.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Why, for people.
            #[must_use]
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        $(#[$counters_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $counters([u64; $reason::ALL.len()]);

        impl Default for $counters {
            fn default() -> Self {
                Self([0; $reason::ALL.len()])
            }
        }

        impl $counters {
            /// One more for `reason`.
            pub const fn count(&mut self, reason: $reason) {
                self.count_many(reason, 1);
            }

            /// `count` more for `reason`.
            pub const fn count_many(&mut self, reason: $reason, count: u64) {
                self.0[reason as usize] += count;
            }

            /// How often `reason` was the reason.
            #[must_use]
            pub const fn get(&self, reason: $reason) -> u64 {
                self.0[reason as usize]
            }

            /// All reasons with their counts, zeros among them.
            pub fn all(&self) -> impl Iterator<Item = ($reason, u64)> + '_ {
                $reason::ALL.iter().map(|&reason| (reason, self.get(reason)))
            }

            /// Reasons that occurred, with their counts.
            pub fn iter(&self) -> impl Iterator<Item = ($reason, u64)> + '_ {
                self.all().filter(|&(_, count)| count > 0)
            }

            /// All drops together.
            #[must_use]
            pub fn total(&self) -> u64 {
                self.0.iter().sum()
            }

            /// Adds another set of counters to this one.
            pub fn add(&mut self, other: &Self) {
                for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
                    *mine += theirs;
                }
            }
        }
    };
}
