//! How much memory it takes to read a pickle, known before it is read.
//!
//! The reader makes an object of nearly every operation, and another wherever the pickle comes back to one: kilobytes may copy
//! a long text thousands of times, or double a list with every two of them. Here the same operations only add up.

use std::collections::HashMap;
use std::io::{self, BufRead, Read};

/// An object's place on the stack, in a list that grows, or in a table: bytes, at most.
const PLACE: u64 = 256;
/// A place on the stack that the reader goes back to, bytes.
const MARK: u64 = 32;
/// Digits of the largest number that is a place in the reader's memory, and the end of its line.
const LONGEST_NUMBER: u64 = 24;
/// A number in a list, as a part of a tensor's name.
const NUMBER: u64 = 24;

/// Bytes that the pickle which begins here takes at most; up to where it is damaged, if it is.
pub fn memory(input: &mut impl BufRead) -> u64 {
    let mut scales = Scales::default();
    while scales.step(input).is_some() {}
    scales.total
}

/// What an object takes wherever it is copied.
#[derive(Debug, Clone, Copy, Default)]
struct Weight {
    bytes: u64,
    /// Its own text, which may come before the names of tensors.
    text: u64,
    /// Tensors in it.
    tensors: u64,
}

/// The reader's stack and memory, with weights in place of objects.
#[derive(Debug, Default)]
struct Scales {
    stack: Vec<Weight>,
    marks: Vec<usize>,
    kept: HashMap<u64, Weight>,
    total: u64,
}

impl Scales {
    /// Goes through one operation; `None` at the last one, and where there is none that the reader knows.
    fn step(&mut self, input: &mut impl BufRead) -> Option<()> {
        match number(input, 1)? as u8 {
            // None, true, false, and what is empty.
            b'N' | 0x88 | 0x89 | b')' | b']' | b'}' | 0x8f => self.make(0),
            // Numbers.
            b'K' => skip(input, 1).map(|_| self.make(0))?,
            b'M' => skip(input, 2).map(|_| self.make(0))?,
            b'J' => skip(input, 4).map(|_| self.make(0))?,
            b'G' => skip(input, 8).map(|_| self.make(0))?,
            // Texts to the end of a line, a class of two, and texts of a length.
            b'I' | b'L' | b'F' | b'V' => self.make(line(input)?),
            b'c' => self.make(line(input)? + line(input)?),
            b'U' | b'C' | 0x8a | 0x8c => self.make(counted(input, 1)?),
            b'T' | b'X' | b'B' | 0x8b => self.make(counted(input, 4)?),
            0x8d | 0x8e | 0x96 => self.make(counted(input, 8)?),
            // Version and frame.
            0x80 => drop(skip(input, 1)?),
            0x95 => drop(skip(input, 8)?),
            // What holds others.
            b'(' => self.mark(),
            b't' | b'l' | b'd' | 0x91 => self.join_to_mark()?,
            b'e' | b'u' | 0x90 => self.add_to_mark()?,
            0x85 => self.join(1)?,
            0x86 | b'R' | 0x81 | 0x93 => self.join(2)?,
            0x87 | 0x92 => self.join(3)?,
            b'a' => self.add_last(1)?,
            b's' => self.add_last(2)?,
            // An object with its state: kept anew if it was kept.
            b'b' => {
                self.join(2)?;
                self.copy(*self.stack.last()?);
            }
            // What lies outside of the pickle: a tensor's values.
            b'P' => {
                self.make(line(input)?);
                self.stack.last_mut()?.tensors = 1;
            }
            b'Q' => {
                self.join(1)?;
                self.stack.last_mut()?.tensors = 1;
            }
            b'0' => self.drop_last()?,
            b'1' => drop(self.pop_to_mark()?),
            // Copies.
            b'2' => self.repeat(*self.stack.last()?),
            b'h' => self.get(number(input, 1)?)?,
            b'j' => self.get(number(input, 4)?)?,
            b'g' => self.get(written(input)?)?,
            b'q' => self.put(number(input, 1)?)?,
            b'r' => self.put(number(input, 4)?)?,
            b'p' => self.put(written(input)?)?,
            0x94 => self.put(self.kept.len() as u64)?,
            _ => return None,
        }
        Some(())
    }

    /// An object of so much text. While it is read, there may be twice of it.
    fn make(&mut self, text: u64) {
        let bytes = PLACE + text;
        self.total = self.total.saturating_add(bytes + text);
        self.stack.push(Weight {
            bytes,
            text,
            tensors: 0,
        });
    }

    fn copy(&mut self, weight: Weight) {
        self.total = self.total.saturating_add(weight.bytes);
    }

    /// Copies an object to the top of the stack.
    fn repeat(&mut self, weight: Weight) {
        self.copy(weight);
        self.stack.push(weight);
    }

    fn get(&mut self, place: u64) -> Option<()> {
        self.repeat(*self.kept.get(&place)?);
        Some(())
    }

    fn put(&mut self, place: u64) -> Option<()> {
        let weight = *self.stack.last()?;
        self.copy(weight);
        self.kept.insert(place, weight);
        Some(())
    }

    fn mark(&mut self) {
        self.total = self.total.saturating_add(MARK);
        self.marks.push(self.stack.len());
    }

    /// Takes away what is on top: a mark, or an object.
    fn drop_last(&mut self) -> Option<()> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
        } else {
            self.pop(1)?;
        }
        Some(())
    }

    fn pop(&mut self, count: usize) -> Option<Vec<Weight>> {
        let bottom = self.marks.last().copied().unwrap_or_default();
        let left = self.stack.len().checked_sub(count)?;
        (left >= bottom).then(|| self.stack.split_off(left))
    }

    fn pop_to_mark(&mut self) -> Option<Vec<Weight>> {
        let mark = self.marks.pop()?;
        Some(self.stack.split_off(mark.min(self.stack.len())))
    }

    /// The last objects become one.
    fn join(&mut self, count: usize) -> Option<()> {
        let items = self.pop(count)?;
        self.hold(Weight::default(), &items);
        Some(())
    }

    /// The objects above the mark become one.
    fn join_to_mark(&mut self) -> Option<()> {
        let items = self.pop_to_mark()?;
        self.hold(Weight::default(), &items);
        Some(())
    }

    /// Puts the objects above the mark into the one below it.
    fn add_to_mark(&mut self) -> Option<()> {
        let items = self.pop_to_mark()?;
        self.add(&items)
    }

    /// Puts the last objects into the one before them.
    fn add_last(&mut self, count: usize) -> Option<()> {
        let items = self.pop(count)?;
        self.add(&items)
    }

    /// Puts objects into the last one.
    fn add(&mut self, items: &[Weight]) -> Option<()> {
        let holder = self.pop(1)?;
        self.hold(*holder.first()?, items);
        Some(())
    }

    /// Pushes what holds these as well. Each tensor among them will have their texts in its name.
    fn hold(&mut self, holder: Weight, items: &[Weight]) {
        let sum = |of: fn(&Weight) -> u64| items.iter().map(of).fold(0, u64::saturating_add);
        let tensors = sum(|item| item.tensors);
        let text = items.iter().map(|item| item.text).max().unwrap_or_default();
        let names = tensors.saturating_mul(text + NUMBER);
        self.total = self.total.saturating_add(PLACE).saturating_add(names);
        self.stack.push(Weight {
            bytes: [holder.bytes, PLACE, names, sum(|item| item.bytes)]
                .into_iter()
                .fold(0, u64::saturating_add),
            text: 0,
            tensors: holder.tensors.saturating_add(tensors),
        });
    }
}

/// A little-endian number of so many bytes.
fn number(input: &mut impl Read, bytes: usize) -> Option<u64> {
    let mut number = [0; 8];
    input.read_exact(&mut number[..bytes]).ok()?;
    Some(u64::from_le_bytes(number))
}

/// Passes over so many bytes, or as many as there are.
fn skip(input: &mut impl Read, bytes: u64) -> Option<u64> {
    io::copy(&mut input.take(bytes), &mut io::sink()).ok()
}

/// The length of a text that says in so many bytes how long it is, as far as it is there.
fn counted(input: &mut impl Read, bytes: usize) -> Option<u64> {
    let length = number(input, bytes)?;
    skip(input, length)
}

/// The length of a line.
fn line(input: &mut impl BufRead) -> Option<u64> {
    Some(input.skip_until(b'\n').ok()? as u64)
}

/// A number in digits.
fn written(input: &mut impl BufRead) -> Option<u64> {
    let mut line = Vec::new();
    input.take(LONGEST_NUMBER).read_until(b'\n', &mut line).ok()?;
    str::from_utf8(&line).ok()?.trim().parse().ok()
}
