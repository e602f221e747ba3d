//! CUDA kernels on the CPU: compiles the unchanged `.cu` files with g++ behind `tests/cuda_sim/cuda_cpu.h`, one shared
//! object per line of `kernels/variants.txt`, and launches their entries.
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use super::cuda::{self, Module};

/// Parameters that a row of a module's table has room for.
const MAX_PARAMS: usize = 4;
/// As `launch.h` numbers them.
pub const SCHEDULES: [&str; 4] = ["forward", "reverse", "random", "interleaved"];
/// Put into the environment of a child process whose modules are built with AddressSanitizer, or to find races.
pub const SANITIZE: &str = "SLM_CUDA_SIM_SANITIZE";
const RACES: &str = "races";
/// Words in this variable name the checks that must not be skipped.
const REQUIRE: &str = "SLM_REQUIRE";

fn kernels_dir() -> PathBuf {
    super::root().join("kernels")
}

fn simulator_dir() -> PathBuf {
    super::root().join("tests/cuda_sim")
}

/// How modules are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Build {
    Plain,
    /// With AddressSanitizer and the checks of undefined behaviour; only for a process that [`sanitized`] has started.
    Sanitized,
    /// With a look at every access of shared memory; for a process that [`watched`] has started.
    Watched,
}

impl Build {
    /// The build for this process.
    pub fn here() -> Build {
        match std::env::var(SANITIZE).as_deref() {
            Err(_) => Build::Plain,
            Ok(RACES) => Build::Watched,
            Ok(_) => Build::Sanitized,
        }
    }

    fn flags(self) -> Vec<&'static str> {
        let mut flags = vec!["-std=c++17", "-fPIC", "-fvisibility=hidden", "-U_FORTIFY_SOURCE"];
        // the arithmetic of the PTX: nothing fused that the source does not fuse, square roots without errno
        flags.extend(["-ffp-contract=off", "-fno-math-errno", "-fno-strict-aliasing"]);
        if fused_multiply_add() {
            flags.push("-march=x86-64-v3");
        }
        flags.push(if self == Build::Plain { "-O2" } else { "-O1" });
        if self == Build::Sanitized {
            flags.extend(["-g1", "-fno-omit-frame-pointer", "-ftrivial-auto-var-init=pattern", "-DCUSIM_ASAN"]);
        }
        if self == Build::Watched {
            flags.extend(["-g1", "-DCUSIM_RACES"]);
        }
        flags
    }

    /// For the kernels alone: the scheduler moves between stacks and is left as it is.
    fn kernel_flags(self) -> Vec<&'static str> {
        let mut flags = vec!["-fno-exceptions", "-fno-rtti"];
        flags.extend(self.link_flags());
        // calls functions of our own at every access
        flags.extend((self == Build::Watched).then_some("-fsanitize=thread"));
        flags
    }

    fn link_flags(self) -> &'static [&'static str] {
        let sanitized = &["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"];
        if self == Build::Sanitized { sanitized } else { &[] }
    }
}

/// Whether the machine has `fmaf` as one instruction; without, g++ calls the C library's, which has the same bits.
fn fused_multiply_add() -> bool {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    ["fma", "avx2", "bmi2"].iter().all(|feature| cpu.split_whitespace().any(|word| word == *feature))
}

/// The version of g++, or why there is no simulator here.
pub fn compiler() -> Result<&'static str, &'static str> {
    static VERSION: OnceLock<Result<String, String>> = OnceLock::new();
    let find = || {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return Err("the simulator of CUDA runs on x86-64 Linux".to_string());
        }
        let output = Command::new("g++").arg("--version").output().map_err(|error| format!("g++: {error}"))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    VERSION.get_or_init(find).as_deref().map_err(String::as_str)
}

/// Whether a test of simulated kernels can run. Where not: says why, or fails if `SLM_REQUIRE` asks for `cuda-sim`.
pub fn available() -> bool {
    let Err(reason) = compiler() else { return true };
    let required = std::env::var(REQUIRE).unwrap_or_default();
    assert!(!required.split([',', ' ']).any(|word| word == "cuda-sim"), "{REQUIRE} asks for cuda-sim: {reason}");
    eprintln!("skipped: {reason}");
    false
}

fn run(command: &mut Command) -> Result<Vec<u8>, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(output.stdout)
}

/// The modules that `variants.txt` lists.
pub fn modules() -> Vec<Module> {
    let file = kernels_dir().join("variants.txt");
    cuda::modules(&fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())))
}

/// A kernel that the text of a module declares: its name and its launch bounds.
type Declared = (String, String);

/// The entries of a preprocessed source, in which `__global__` and `__launch_bounds__` are still words.
fn entries(text: &str) -> Result<Vec<Declared>, String> {
    let mut found = Vec::new();
    for part in text.split("__global__").skip(1) {
        let part = part.trim_start().strip_prefix("void").ok_or("a kernel returns void")?.trim_start();
        let Some(part) = part.strip_prefix("__launch_bounds__") else {
            return Err(format!("a kernel without __launch_bounds__: {}", part.lines().next().unwrap_or("")));
        };
        let mut depth = 0;
        let end = part.find(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            c == ')' && depth == 0
        });
        let (bounds, rest) = part.split_at(end.ok_or("unbalanced __launch_bounds__")? + 1);
        let name = rest.split('(').next().unwrap_or("").trim();
        found.push((name.to_string(), bounds.trim().to_string()));
    }
    Ok(found)
}

/// A module's text after the preprocessor, and its entries.
struct Scanned {
    text: String,
    entries: Vec<Declared>,
}

/// A text without the folder of this tree, so that a copy of the tree with the same cache compiles nothing again.
fn anywhere(text: &str) -> String {
    text.replace(&super::root().display().to_string(), "")
}

fn scan(module: &Module) -> Result<Scanned, String> {
    let mut command = Command::new("g++");
    command.args(["-E", "-std=c++17", "-DCUSIM_SCAN", "-include", "cuda_cpu.h", "-I"]).arg(simulator_dir());
    command.args(&module.defines).args(["-x", "c++"]).arg(kernels_dir().join(&module.source));
    let text = String::from_utf8_lossy(&run(&mut command)?).into_owned();
    let entries = entries(&text)?;
    Ok(Scanned { text: anywhere(&text), entries })
}

/// Where built modules are kept from one run of the tests to the next.
fn cache() -> PathBuf {
    super::root().join("target/cuda_sim")
}

fn hash(parts: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

/// Makes `name` in the cache unless it is there; `make` is told where to write it.
fn cached(name: &str, make: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    let path = cache().join(name);
    if !path.exists() {
        fs::create_dir_all(cache()).map_err(|error| error.to_string())?;
        // another process may be making the same: the last to rename wins, with the same bytes
        let partial = cache().join(format!("{}-{}", std::process::id(), name.replace('/', "-")));
        make(&partial)?;
        fs::rename(&partial, &path).map_err(|error| error.to_string())?;
    }
    Ok(path)
}

/// What `make` makes of every module, by as many threads as there are cores: each waits for a compiler.
fn in_parallel<T: Send + Sync>(modules: &[Module], make: impl Fn(&Module) -> T + Sync) -> Vec<T> {
    let results: Vec<OnceLock<T>> = modules.iter().map(|_| OnceLock::new()).collect();
    let open = Mutex::new(modules.iter().zip(&results));
    let take = || open.lock().expect("no one panics with the lock").next();
    let work = || {
        while let Some((module, result)) = take() {
            let _ = result.set(make(module));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    results.into_iter().map(|result| result.into_inner().expect("every module is taken")).collect()
}

/// The scheduler that every module links, as an object file.
fn scheduler(build: Build) -> Result<PathBuf, String> {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _one = BUILDING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let dir = simulator_dir();
    let text = |name: &str| fs::read_to_string(dir.join(name)).map_err(|error| format!("{name}: {error}"));
    let key = hash(&[
        &text("scheduler.cpp")?,
        &text("scheduler.h")?,
        &text("launch.h")?,
        &text("races.h")?,
        &format!("{build:?} {:?}", build.flags()),
        compiler()?,
    ]);
    cached(&format!("scheduler-{key:016x}.o"), |path| {
        let mut command = Command::new("g++");
        // loops that a sanitizer must not see stay loops
        command.args(build.flags()).arg("-fno-tree-loop-distribute-patterns");
        run(command.arg("-c").arg(dir.join("scheduler.cpp")).arg("-o").arg(path)).map(drop)
    })
}

/// Compiles a module; the path of the shared object.
fn compile(module: &Module, scanned: &Scanned, build: Build) -> Result<PathBuf, String> {
    let scheduler = scheduler(build)?;
    // in a namespace without a name, so that static shared arrays of inline functions are this module's own
    let mut text =
        format!("#include \"cuda_cpu.h\"\nnamespace {{\n#include {:?}\n}}\n", kernels_dir().join(&module.source));
    text += "static const cusim::Kernel KERNELS[] = {\n";
    for (name, bounds) in &scanned.entries {
        text += &format!("    CUSIM_KERNEL({name}, cusim::most_threads{bounds}),\n");
    }
    text +=
        "};\nextern \"C\" __attribute__((visibility(\"default\"))) const cusim::Kernel* cusim_kernels(unsigned* n) {\n";
    text += "    *n = sizeof KERNELS / sizeof *KERNELS;\n    return KERNELS;\n}\n";
    let scheduler_name = scheduler.file_name().expect("a file").to_string_lossy();
    let flags = format!("{build:?} {:?} {:?}", build.flags(), build.kernel_flags());
    let key = hash(&[
        &scanned.text,
        &anywhere(&text),
        &scheduler_name,
        &flags,
        &format!("{:?}", module.defines),
        compiler()?,
    ]);
    cached(&format!("{}-{key:016x}.so", module.name), |path| {
        let source = path.with_extension("cpp");
        fs::write(&source, &text).map_err(|error| error.to_string())?;
        let object = path.with_extension("o");
        let mut command = Command::new("g++");
        command.args(build.flags()).args(build.kernel_flags()).args(&module.defines).arg("-I").arg(simulator_dir());
        command.arg("-c").arg(&source).arg("-o").arg(&object);
        run(&mut command).map_err(|log| format!("{} does not compile:\n{log}", module.name))?;
        // variables without a first value: static shared arrays
        let sections = ["--set-section-flags", ".bss=alloc,load,contents", "--rename-section", ".bss=cusim_shared"];
        run(Command::new("objcopy").args(sections).arg(&object))?;
        let mut command = Command::new("g++");
        command.args(build.link_flags()).args(["-shared", "-o"]).arg(path).arg(&object).arg(&scheduler);
        run(&mut command)?;
        [&source, &object].into_iter().try_for_each(|file| fs::remove_file(file).map_err(|error| error.to_string()))
    })
}

/// A row of a module's table of kernels, as `scheduler.h` has it.
#[repr(C)]
struct Row {
    name: *const c_char,
    call: *const c_void,
    launch_bounds: c_uint,
    params: c_uint,
    param_sizes: [c_uint; MAX_PARAMS],
}

/// As `launch.h` has it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Config {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub schedule: u32,
    pub seed: u32,
}

type LaunchFn = unsafe extern "C" fn(*const Row, *const Config, *mut *mut c_void, *mut c_char, usize) -> c_int;
type ForbidFn = unsafe extern "C" fn(*const c_void, usize, c_int);

/// A compiled and loaded module.
pub struct Library {
    rows: &'static [Row],
    launch: LaunchFn,
    forbid: ForbidFn,
}

// SAFETY: rows are constants of a library that is never unloaded, and a module runs one launch at a time
unsafe impl Send for Library {}
unsafe impl Sync for Library {}

impl Library {
    fn load(path: &Path) -> Result<Library, String> {
        // SAFETY: our own code, whose symbols have these types
        unsafe {
            let library = libloading::Library::new(path).map_err(|error| error.to_string())?;
            let library = Box::leak(Box::new(library));
            let kernels = library
                .get::<unsafe extern "C" fn(*mut c_uint) -> *const Row>(b"cusim_kernels")
                .map_err(|error| error.to_string())?;
            let mut count = 0;
            let rows = kernels(&mut count);
            Ok(Library {
                rows: std::slice::from_raw_parts(rows, count as usize),
                launch: *library.get::<LaunchFn>(b"cusim_launch").map_err(|error| error.to_string())?,
                forbid: *library.get::<ForbidFn>(b"cusim_forbid").map_err(|error| error.to_string())?,
            })
        }
    }

    fn row(&self, entry: &str) -> &Row {
        // SAFETY: names are C strings
        let named = |row: &&Row| unsafe { CStr::from_ptr(row.name) }.to_bytes() == entry.as_bytes();
        self.rows.iter().find(named).unwrap_or_else(|| panic!("no kernel `{entry}` in the module that declares it"))
    }

    /// Bytes of each parameter.
    pub fn param_sizes(&self, entry: &str) -> Vec<usize> {
        let row = self.row(entry);
        row.param_sizes[..row.params as usize].iter().map(|size| *size as usize).collect()
    }

    /// Runs a kernel; `params` hold the bytes of its parameters.
    ///
    /// # Safety
    /// Addresses among the parameters are good for what the kernel does with them.
    pub unsafe fn launch(&self, entry: &str, config: &Config, params: &mut [Vec<u32>]) -> Result<(), String> {
        let sizes: Vec<usize> = params.iter().map(|words| words.len() * 4).collect();
        assert_eq!(sizes, self.param_sizes(entry), "`{entry}`: bytes of its parameters");
        let mut pointers: Vec<*mut c_void> = params.iter_mut().map(|words| words.as_mut_ptr().cast()).collect();
        let mut message = vec![0u8; 4096];
        // SAFETY: as many parameters as the kernel has, of its sizes
        let failed = unsafe {
            (self.launch)(self.row(entry), config, pointers.as_mut_ptr(), message.as_mut_ptr().cast(), message.len())
        };
        let text = CStr::from_bytes_until_nul(&message).expect("a C string").to_string_lossy().into_owned();
        if failed == 0 { Ok(()) } else { Err(text) }
    }

    /// Forbids kernels to touch these bytes, until they are allowed again; seen to in a sanitized process.
    pub fn forbid(&self, bytes: *const u8, count: usize, forbidden: bool) {
        // SAFETY: marks bytes, touches none
        unsafe { (self.forbid)(bytes.cast(), count, forbidden.into()) }
    }
}

/// Compiles, where that has not been done, and loads a module.
pub fn load(module: &Module, build: Build) -> Result<Library, String> {
    Library::load(&compile(module, &scan(module)?, build)?)
}

/// A module of `variants.txt`, loaded by the first who needs it.
struct Known {
    module: Module,
    scanned: Result<Scanned, String>,
    library: OnceLock<Result<Library, String>>,
}

/// The module with this entry, loaded.
///
/// # Panics
/// If no module declares it, several do, or the module does not compile.
pub fn with_entry(entry: &str) -> &'static Library {
    static MODULES: OnceLock<Vec<Known>> = OnceLock::new();
    let known = |module: &Module| Known { scanned: scan(module), module: module.clone(), library: OnceLock::new() };
    let modules = MODULES.get_or_init(|| in_parallel(&modules(), known));
    let declares = |scanned: &Scanned| scanned.entries.iter().any(|(name, _)| name == entry);
    let mut fits = modules.iter().filter(|known| known.scanned.as_ref().is_ok_and(declares));
    let Some(Known { module, scanned: Ok(scanned), library }) = fits.next() else {
        let logs: Vec<&String> = modules.iter().filter_map(|known| known.scanned.as_ref().err()).collect();
        panic!("no module of variants.txt has the kernel `{entry}` {logs:?}");
    };
    assert!(fits.next().is_none(), "several modules have a kernel `{entry}`");
    let library = library.get_or_init(|| Library::load(&compile(module, scanned, Build::here())?));
    library.as_ref().unwrap_or_else(|log| panic!("{log}"))
}

/// A `libcuda.so.1` whose device is this CPU, and the list of kernels that it runs.
pub struct FakeDriver {
    folder: PathBuf,
    kernels: PathBuf,
}

impl FakeDriver {
    /// Compiles the driver and every module.
    ///
    /// # Errors
    /// The compiler's log.
    pub fn build() -> Result<FakeDriver, String> {
        let dir = simulator_dir();
        let mut text = compiler()?.to_string();
        for name in ["fakecuda.cpp", "device.h", "launch.h", "scheduler.h"] {
            text += &fs::read_to_string(dir.join(name)).map_err(|error| format!("{name}: {error}"))?;
        }
        let folder = cache().join(format!("driver-{:016x}", hash(&[&text])));
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        // the loader asks for either name
        for name in ["libcuda.so", "libcuda.so.1"] {
            let name = format!("{}/{name}", folder.file_name().expect("a folder").to_string_lossy());
            cached(&name, |path| {
                let mut command = Command::new("g++");
                command.args(Build::Plain.flags()).arg("-shared").arg("-o").arg(path).arg(dir.join("fakecuda.cpp"));
                run(command.arg("-ldl")).map(drop)
            })?;
        }
        let list = in_parallel(&modules(), |module| {
            let scanned = scan(module)?;
            let path = compile(module, &scanned, Build::Plain)?;
            let line = |(entry, _): &Declared| format!("{entry} {}\n", path.display());
            Ok(scanned.entries.iter().map(line).collect::<String>())
        });
        let list = list.into_iter().collect::<Result<String, String>>()?;
        let kernels = cached(&format!("kernels-{:016x}.txt", hash(&[&list])), |path| {
            fs::write(path, &list).map_err(|error| error.to_string())
        })?;
        Ok(FakeDriver { folder, kernels })
    }

    /// Makes a program find this driver instead of NVIDIA's.
    pub fn under<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("LD_LIBRARY_PATH", &self.folder).env("FAKECUDA_KERNELS", &self.kernels)
    }
}

/// Runs one test of this very binary in a child whose modules are sanitized, or says why not. `Err` holds what it wrote.
pub fn sanitized(test: &str) -> Result<(), String> {
    let mut command = Command::new("g++");
    let library = run(command.arg("-print-file-name=libasan.so"))?;
    let library = String::from_utf8_lossy(&library).trim().to_string();
    again(test, |command| {
        command
            .env("LD_PRELOAD", library)
            .env("ASAN_OPTIONS", "detect_leaks=0:allocator_may_return_null=1")
            .env("UBSAN_OPTIONS", "print_stacktrace=1")
            .env(SANITIZE, "1");
    })
    .map(drop)
}

/// Runs one test of this very binary in a child whose modules report races. `Err` holds what it wrote.
pub fn watched(test: &str) -> Result<(), String> {
    again(test, |command| {
        command.env(SANITIZE, RACES);
    })
    .map(drop)
}

/// Runs one test of this very binary in a child with a changed environment. Either way: what it wrote.
pub fn again(test: &str, change: impl FnOnce(&mut Command)) -> Result<String, String> {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", test, "--nocapture"]);
    change(&mut command);
    let output = command.output().map_err(|error| error.to_string())?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() && text.contains("1 passed") { Ok(text) } else { Err(text) }
}
