//! Where the network runs.

use burn::tensor::Device;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What the user asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceChoice {
    /// The CPU: byte-identical results whatever the number of threads.
    Cpu,
    /// A graphics adapter by way of wgpu, a software one included.
    Wgpu,
    /// wgpu when its adapter is real hardware, else the CPU.
    #[default]
    Auto,
}

const CPU: &str = "cpu";

/// An open device.
#[derive(Debug, Clone)]
pub struct OpenDevice {
    /// Without autodiff.
    pub device: Device,
    /// What it is, for people and records.
    pub name: String,
}

impl OpenDevice {
    /// The CPU.
    pub fn cpu() -> Self {
        Self {
            device: Device::flex(),
            name: CPU.into(),
        }
    }

    /// Whether it is the CPU.
    pub fn is_cpu(&self) -> bool {
        self.name == CPU
    }

    /// Opens what was asked for.
    ///
    /// # Errors
    /// wgpu was asked for and there is no adapter.
    pub fn open(choice: DeviceChoice) -> Result<Self> {
        match choice {
            DeviceChoice::Cpu => Ok(Self::cpu()),
            DeviceChoice::Wgpu => Ok(Self::wgpu()?.0),
            DeviceChoice::Auto => match Self::wgpu() {
                Ok((device, true)) => Ok(device),
                _ => Ok(Self::cpu()),
            },
        }
    }

    /// The wgpu device, and whether it is real hardware.
    ///
    /// # Errors
    /// There is no adapter.
    #[cfg(feature = "wgpu")]
    pub fn wgpu() -> Result<(Self, bool)> {
        let device = Device::wgpu_options().init().map_err(|why| {
            Error::Message(format!(
                "no wgpu adapter can be opened ({why}); install a Vulkan driver (Debian: mesa-vulkan-drivers libvulkan1) or pass --device cpu"
            ))
        })?;
        let identity = device.identity();
        let name = identity.as_ref().map_or("unnamed", |identity| identity.name.as_str());
        let hardware = identity.as_ref().is_some_and(|identity| identity.physical.is_some());
        let name = format!("wgpu: {name}");
        Ok((Self { device, name }, hardware))
    }

    /// There is none in a program that was built without.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(feature = "wgpu"))]
    pub fn wgpu() -> Result<(Self, bool)> {
        Err(Error::Message(
            "this program was built without wgpu; build it with that feature, or pass --device cpu".into(),
        ))
    }
}
