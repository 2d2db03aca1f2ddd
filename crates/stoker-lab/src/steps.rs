//! What a person sees while the lab works: each step when it starts, a line every few seconds while it
//! lasts, and how long it took.

use std::fmt::Display;
use std::future::Future;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Result;

/// A step that lasts longer than this gets a line of its own each time it passes.
const STILL_WORKING_EVERY: Duration = Duration::from_secs(10);

/// Prints the steps of one run to standard error, so that standard output stays for answers.
#[derive(Debug, Clone)]
pub struct Steps {
    begun: Instant,
}

impl Default for Steps {
    fn default() -> Self {
        Self::new()
    }
}

impl Steps {
    /// Starts the clock of the run.
    #[must_use]
    pub fn new() -> Self {
        Self {
            begun: Instant::now(),
        }
    }

    /// Does one step and prints its start, its progress and its end.
    ///
    /// # Errors
    /// Those of the work, after the failing step was named.
    pub async fn step<T>(
        &self,
        title: impl Display,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.line(format_args!("{title} ..."));
        let begun = Instant::now();
        let mut work = std::pin::pin!(work);
        let outcome = loop {
            tokio::select! {
                outcome = &mut work => break outcome,
                () = tokio::time::sleep(STILL_WORKING_EVERY) => {
                    self.line(format_args!("{title}: still working, {:.0} s", begun.elapsed().as_secs_f64()));
                }
            }
        };
        let seconds = begun.elapsed().as_secs_f64();
        match &outcome {
            Ok(_) => self.line(format_args!("{title}: done in {seconds:.1} s")),
            Err(error) => self.line(format_args!(
                "{title}: FAILED after {seconds:.1} s: {error:#}"
            )),
        }
        outcome
    }

    /// Prints a line that is not a step.
    pub fn note(&self, text: impl Display) {
        self.line(format_args!("{text}"));
    }

    /// Time since the run began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    fn line(&self, text: std::fmt::Arguments<'_>) {
        let mut out = std::io::stderr().lock();
        // A closed terminal must not stop the work.
        let _ = writeln!(out, "[{:6.1}s] {text}", self.begun.elapsed().as_secs_f64());
    }
}
