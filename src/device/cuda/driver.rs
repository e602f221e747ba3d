//! NVIDIA's driver, call by call: every result is checked, every handle is freed by its one owner.
//!
//! The raw layer of cudarc is used, so that each driver call the program makes stands in this file.

use crate::error::Error;
use cudarc::driver::sys::{self, CUresult};
use std::ffi::{CStr, CString, c_void};
use std::fmt;
use std::ptr::null_mut;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use sys::{
    CUdevice_attribute as Attribute, CUfunction_attribute as FunctionAttribute, CUresult as Code, CUstreamCaptureMode,
};

/// A driver call that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    pub call: &'static str,
    pub code: CUresult,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = std::ptr::null();
        // SAFETY: a plain look-up; the text is the driver's own constant
        let known = unsafe { sys::cuGetErrorString(self.code, &mut text) } == CUresult::CUDA_SUCCESS && !text.is_null();
        write!(f, "{} returned {:?}", self.call, self.code)?;
        if known {
            // SAFETY: the driver's texts end in NUL and live as long as the program
            write!(f, " ({})", unsafe { CStr::from_ptr(text) }.to_string_lossy())?;
        }
        Ok(())
    }
}

impl Failure {
    /// The failure as a user reads it: on which device, and while doing what.
    pub fn during(self, place: &str, doing: &str) -> Error {
        Error::new(place, format!("{doing}: {self}"))
    }
}

pub type Checked<T> = Result<T, Failure>;

/// Makes one driver call and checks its result.
macro_rules! call {
    ($name:ident($($arg:expr),* $(,)?)) => {{
        // SAFETY: handles come from the driver and are alive, pointers are to live memory of the declared size
        match unsafe { sys::$name($($arg),*) } {
            CUresult::CUDA_SUCCESS => Ok(()),
            code => Err(Failure { call: stringify!($name), code }),
        }
    }};
}

/// Whether there is a driver at all. Nothing else of this file may be called before it said yes.
pub fn is_present() -> bool {
    // SAFETY: opens and closes a library
    unsafe { sys::is_culib_present() }
}

/// Starts the driver; again is harmless.
pub fn init() -> Checked<()> {
    call!(cuInit(0))
}

/// The newest CUDA version that the driver knows, `1000 * major + 10 * minor`.
pub fn version() -> Checked<i32> {
    let mut version = 0;
    call!(cuDriverGetVersion(&mut version))?;
    Ok(version)
}

/// Devices that the driver shows to this process.
pub fn device_count() -> Checked<i32> {
    let mut count = 0;
    call!(cuDeviceGetCount(&mut count))?;
    Ok(count)
}

/// The primary context of one device: shared by all that this process does there.
pub struct Context {
    device: sys::CUdevice,
    handle: sys::CUcontext,
}

// SAFETY: the driver takes calls from any thread
unsafe impl Send for Context {}
unsafe impl Sync for Context {}

impl Context {
    pub fn new(ordinal: i32) -> Checked<Arc<Context>> {
        let (mut device, mut handle) = (0, null_mut());
        call!(cuDeviceGet(&mut device, ordinal))?;
        call!(cuDevicePrimaryCtxRetain(&mut handle, device))?;
        Ok(Arc::new(Context { device, handle }))
    }

    /// Makes the context this thread's; the driver's calls mean the current one.
    pub fn bind(&self) -> Checked<()> {
        call!(cuCtxSetCurrent(self.handle))
    }

    pub fn name(&self) -> Checked<String> {
        let mut name = [0; 128];
        call!(cuDeviceGetName(name.as_mut_ptr(), name.len() as i32 - 1, self.device))?;
        // SAFETY: the last byte stays NUL
        Ok(unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
    }

    pub fn attribute(&self, attribute: Attribute) -> Checked<i32> {
        let mut value = 0;
        call!(cuDeviceGetAttribute(&mut value, attribute, self.device))?;
        Ok(value)
    }

    /// Free and total bytes of device memory.
    pub fn memory(&self) -> Checked<(usize, usize)> {
        let (mut free, mut total) = (0, 0);
        self.bind()?;
        call!(cuMemGetInfo_v2(&mut free, &mut total))?;
        Ok((free, total))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // at the end of a process the driver may be gone already; there is nobody left to tell
        let _ = call!(cuDevicePrimaryCtxRelease_v2(self.device));
    }
}

/// A block of device memory.
pub struct Block {
    context: Arc<Context>,
    at: sys::CUdeviceptr,
    words: usize,
}

impl Block {
    /// `words` 32-bit words with arbitrary contents.
    pub fn new(context: &Arc<Context>, words: usize) -> Checked<Block> {
        context.bind()?;
        let mut at = 0;
        call!(cuMemAlloc_v2(&mut at, words * 4))?;
        Ok(Block { context: context.clone(), at, words })
    }

    /// The device address of a word.
    pub fn address(&self, word: usize) -> u64 {
        assert!(word <= self.words, "an address lies inside its block");
        self.at + 4 * word as u64
    }

    /// Sets `words` words from `from` on to `value`, in the stream's order.
    pub fn fill(&self, stream: &Stream, from: usize, words: usize, value: u32) -> Checked<()> {
        assert!(from + words <= self.words, "a fill stays inside its block");
        call!(cuMemsetD32Async(self.address(from), value, words, stream.handle))
    }

    /// Copies `words` to the word `to`. Memory of the system is read before this returns.
    pub fn upload(&self, stream: &Stream, to: usize, words: &[u32]) -> Checked<()> {
        assert!(to + words.len() <= self.words, "a copy stays inside its block");
        call!(cuMemcpyHtoDAsync_v2(self.address(to), words.as_ptr().cast(), words.len() * 4, stream.handle))
    }

    /// Copies `words` words from the word `from` on into `to`, in the stream's order.
    ///
    /// # Safety
    /// `to` has room for them and is left alone until the stream has come past.
    pub unsafe fn download(&self, stream: &Stream, from: usize, words: usize, to: *mut u32) -> Checked<()> {
        assert!(from + words <= self.words, "a copy stays inside its block");
        call!(cuMemcpyDtoHAsync_v2(to.cast(), self.address(from), words * 4, stream.handle))
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // after a kernel's fault every call fails, and the process gives the memory back
        let _ = self.context.bind().and_then(|()| call!(cuMemFree_v2(self.at)));
    }
}

/// Page-locked memory of the host: copies to it need no staging.
pub struct Pinned {
    context: Arc<Context>,
    at: *mut u32,
    words: usize,
}

// SAFETY: plain words with one owner
unsafe impl Send for Pinned {}

impl Pinned {
    pub fn new(context: &Arc<Context>, words: usize) -> Checked<Pinned> {
        context.bind()?;
        let mut at = null_mut();
        call!(cuMemHostAlloc(&mut at, words * 4, 0))?;
        Ok(Pinned { context: context.clone(), at: at.cast(), words })
    }

    pub fn words(&self) -> usize {
        self.words
    }

    pub fn start(&mut self) -> *mut u32 {
        self.at
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = self.context.bind().and_then(|()| call!(cuMemFreeHost(self.at.cast())));
    }
}

/// An ordered line of work on the device.
pub struct Stream {
    context: Arc<Context>,
    handle: sys::CUstream,
}

// SAFETY: as the context's
unsafe impl Send for Stream {}
unsafe impl Sync for Stream {}

impl Stream {
    /// A stream that waits for no other, the legacy default stream included.
    pub fn new(context: &Arc<Context>) -> Checked<Stream> {
        context.bind()?;
        let mut handle = null_mut();
        call!(cuStreamCreate(&mut handle, sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32))?;
        Ok(Stream { context: context.clone(), handle })
    }

    /// Waits for everything enqueued so far.
    pub fn synchronize(&self) -> Checked<()> {
        call!(cuStreamSynchronize(self.handle))
    }

    /// Launches a kernel. `params` point at the kernel's parameters, which are copied before this returns.
    pub fn launch(
        &self,
        function: Function,
        grid: [u32; 3],
        threads: u32,
        shared_bytes: u32,
        params: &mut [*mut c_void],
    ) -> Checked<()> {
        let [x, y, z] = grid;
        let params = params.as_mut_ptr();
        call!(cuLaunchKernel(function.0, x, y, z, threads, 1, 1, shared_bytes, self.handle, params, null_mut()))
    }

    /// Records what `enqueue` puts into this stream instead of running it.
    pub fn capture(&self, enqueue: impl FnOnce() -> Checked<()>) -> Checked<Graph> {
        // other threads may allocate meanwhile; this one does nothing but launch
        call!(cuStreamBeginCapture_v2(self.handle, CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL))?;
        let enqueued = enqueue();
        let mut graph = null_mut();
        // the capture ends whatever happened inside it
        let ended = call!(cuStreamEndCapture(self.handle, &mut graph));
        let mut handle = null_mut();
        let outcome = enqueued.and(ended).and_then(|()| call!(cuGraphInstantiateWithFlags(&mut handle, graph, 0)));
        if !graph.is_null() {
            let _ = call!(cuGraphDestroy(graph));
        }
        outcome?;
        let graph = Graph { context: self.context.clone(), handle };
        call!(cuGraphUpload(graph.handle, self.handle))?;
        Ok(graph)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.context.bind().and_then(|()| call!(cuStreamDestroy_v2(self.handle)));
    }
}

/// Captured launches, ready to run again.
pub struct Graph {
    context: Arc<Context>,
    handle: sys::CUgraphExec,
}

// SAFETY: used by the one thread that owns its memory at a time
unsafe impl Send for Graph {}
unsafe impl Sync for Graph {}

impl Graph {
    pub fn launch(&self, stream: &Stream) -> Checked<()> {
        call!(cuGraphLaunch(self.handle, stream.handle))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let _ = self.context.bind().and_then(|()| call!(cuGraphExecDestroy(self.handle)));
    }
}

/// Polls of an event before its thread sleeps: a wait this short ends sooner than a sleeper wakes.
const POLL: Duration = Duration::from_micros(100);

/// A mark in a stream that can be waited for.
pub struct Event {
    context: Arc<Context>,
    handle: sys::CUevent,
}

// SAFETY: as the context's
unsafe impl Send for Event {}
unsafe impl Sync for Event {}

impl Event {
    /// A mark to wait for, or one that notes the time too.
    pub fn new(context: &Arc<Context>, timed: bool) -> Checked<Event> {
        context.bind()?;
        let mut handle = null_mut();
        let untimed = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
        let flags = sys::CUevent_flags::CU_EVENT_BLOCKING_SYNC as u32 | if timed { 0 } else { untimed };
        call!(cuEventCreate(&mut handle, flags))?;
        Ok(Event { context: context.clone(), handle })
    }

    /// Marks everything that is in the stream now.
    pub fn record(&self, stream: &Stream) -> Checked<()> {
        call!(cuEventRecord(self.handle, stream.handle))
    }

    /// Returns when the device has come past the mark.
    pub fn wait(&self) -> Checked<()> {
        let began = Instant::now();
        while began.elapsed() < POLL {
            match call!(cuEventQuery(self.handle)) {
                Err(Failure { code: CUresult::CUDA_ERROR_NOT_READY, .. }) => std::hint::spin_loop(),
                done => return done,
            }
        }
        call!(cuEventSynchronize(self.handle))
    }

    /// Milliseconds from this mark to a later one; both are past.
    pub fn ms_to(&self, later: &Event) -> Checked<f64> {
        let mut ms = 0.0;
        call!(cuEventElapsedTime(&mut ms, self.handle, later.handle))?;
        Ok(f64::from(ms))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let _ = self.context.bind().and_then(|()| call!(cuEventDestroy_v2(self.handle)));
    }
}

/// A kernel of a loaded module; valid while the module is.
#[derive(Debug, Clone, Copy)]
pub struct Function(sys::CUfunction);

// SAFETY: as the context's
unsafe impl Send for Function {}
unsafe impl Sync for Function {}

impl Function {
    pub fn set(self, attribute: FunctionAttribute, value: i32) -> Checked<()> {
        call!(cuFuncSetAttribute(self.0, attribute, value))
    }

    pub fn get(self, attribute: FunctionAttribute) -> Checked<i32> {
        let mut value = 0;
        call!(cuFuncGetAttribute(&mut value, attribute, self.0))?;
        Ok(value)
    }
}

/// PTX that the driver has compiled for this device.
pub struct Module {
    context: Arc<Context>,
    handle: sys::CUmodule,
}

// SAFETY: as the context's
unsafe impl Send for Module {}
unsafe impl Sync for Module {}

impl Module {
    /// Compiles `ptx`; the driver keeps the result in its own cache on disk. A failure comes with the compiler's log.
    pub fn load(context: &Arc<Context>, ptx: &str) -> Result<Module, (Failure, String)> {
        let silent = |failure| (failure, String::new());
        context.bind().map_err(silent)?;
        let image = CString::new(ptx).expect("PTX is text");
        let mut log = vec![0u8; 16 << 10];
        let mut options =
            [sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER, sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        // the driver takes numbers in the place of pointers
        let mut values = [log.as_mut_ptr().cast(), log.len() as *mut c_void];
        let mut handle = null_mut();
        let (options, values) = (options.as_mut_ptr(), values.as_mut_ptr());
        match call!(cuModuleLoadDataEx(&mut handle, image.as_ptr().cast(), 2, options, values)) {
            Ok(()) => Ok(Module { context: context.clone(), handle }),
            Err(failure) => {
                let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
                Err((failure, String::from_utf8_lossy(&log[..end]).trim().to_string()))
            }
        }
    }

    pub fn function(&self, entry: &str) -> Checked<Function> {
        let name = CString::new(entry).expect("the name of a kernel is text");
        let mut function = null_mut();
        call!(cuModuleGetFunction(&mut function, self.handle, name.as_ptr()))?;
        Ok(Function(function))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let _ = self.context.bind().and_then(|()| call!(cuModuleUnload(self.handle)));
    }
}
