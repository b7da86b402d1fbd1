//! Progress for people: a bar with the time left, on standard error.

use indicatif::{ProgressBar, ProgressStyle};

/// Steps or bytes done of all. Nothing is drawn where standard error is no terminal.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar of so many steps.
    pub fn new(steps: usize) -> Self {
        let bar = ProgressBar::new(steps as u64);
        let style = ProgressStyle::with_template("{bar:24} {pos}/{len}, {eta} left, {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    /// A bar of so many bytes.
    pub fn of_bytes(bytes: u64) -> Self {
        let bar = ProgressBar::new(bytes);
        let template = "{bar:24} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left, {msg}";
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    /// So much is done of all, if that is known.
    pub fn at(&self, done: u64, total: Option<u64>, message: &str) {
        if let Some(total) = total {
            self.0.set_length(total);
        }
        self.0.set_message(message.to_owned());
        let resumed = self.0.position() == 0;
        self.0.set_position(done);
        if resumed {
            // What was done before says nothing of how fast the rest comes.
            self.0.reset_eta();
        }
    }

    /// So many bytes more are done.
    pub fn advance(&self, bytes: u64, message: &str) {
        self.0.set_message(message.to_owned());
        self.0.inc(bytes);
    }

    /// One more step is done.
    pub fn step(&self, message: &str) {
        self.0.set_message(message.to_owned());
        self.0.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
