"""Opens report pages and the live view in headless Chromium and checks what a person would see.

    python tools/check_web.py PROGRAM DATA [--train SPEC] [--screenshots FOLDER]

PROGRAM is slm-fast, DATA a folder of runs that have reports (`slm-fast report`). Every report page in it, and `slm-fast
serve` with the list and with every run, is opened at 1280 and at 390 px. Checked: no error on the console, no request to
any other place, charts with something drawn, a table that sorts by a click, a hover that shows values, no page wider than
the window. With --train a run of SPEC, which must take a while, is watched from its first rows to its end by a kill. One
line per page; exit code 1 where something is wrong, 3 where there is no Chromium.

Needs `chromium` and `chromedriver` (Debian: chromium, chromium-driver) and Python's standard library alone.
"""

import argparse
import base64
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

WIDTHS = (1280, 390)
CHROMIUM = ["chromium", "chromium-browser", "google-chrome", "chrome"]
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-extensions", "--hide-scrollbars",
    "--force-device-scale-factor=1",
]

# what the page holds: drawn marks per chart, tables, text
LOOK = """
const drawn = (svg) => svg.querySelectorAll('path.line, circle.dot').length;
const charts = [...document.querySelectorAll('.chart svg')];
return {
  charts: charts.length,
  drawn: charts.map(drawn),
  boxes: charts.map((svg) => svg.getBoundingClientRect().width),
  lines: [...document.querySelectorAll('path.line')].filter((line) => line.getTotalLength() > 1).length,
  rows: document.querySelectorAll('tbody tr').length,
  width: document.documentElement.scrollWidth,
  window: window.innerWidth,
  text: document.body.innerText,
};
"""

# sorts the first table by each of its columns; the column's texts before and after
SORT = """
const table = document.querySelector('table');
const heads = [...table.querySelectorAll('th button')];
const column = (i) => [...table.querySelectorAll('tbody tr')].map((row) => row.children[i].dataset.value);
const found = [];
for (let i = 0; i < heads.length; i++) {
  heads[i].click();
  const once = column(i), direction = heads[i].parentNode.getAttribute('aria-sort');
  heads[i].click();
  found.push([heads[i].innerText, once, column(i), direction, heads[i].parentNode.getAttribute('aria-sort')]);
}
return found;
"""

# moves the pointer over the first chart
HOVER = """
const chart = document.querySelector('.chart');
const box = chart.getBoundingClientRect();
const at = { clientX: box.left + box.width * 0.6, clientY: box.top + box.height * 0.4, bubbles: true };
chart.dispatchEvent(new PointerEvent('pointermove', at));
const tip = chart.querySelector('.tip');
return tip.hidden ? '' : tip.innerText;
"""

# zooms into the first chart by a drag; the labels of its axes before, after, and after a double click
ZOOM = """
const chart = document.querySelector('.chart');
chart.setPointerCapture = () => {};
const box = chart.getBoundingClientRect();
const labels = () => [...chart.querySelectorAll('text')].map((t) => t.textContent).join(' ');
const send = (type, share) => chart.dispatchEvent(new PointerEvent(type,
  { clientX: box.left + box.width * share, clientY: box.top + 50, bubbles: true, pointerType: 'mouse', pointerId: 1 }));
const before = labels();
send('pointerdown', 0.4); send('pointermove', 0.5); send('pointerup', 0.6);
const zoomed = labels();
chart.dispatchEvent(new MouseEvent('dblclick', { bubbles: true }));
return [before, zoomed, labels()];
"""


class Browser:
    """A Chromium behind a chromedriver, spoken to in WebDriver's JSON over HTTP."""

    def __init__(self, chromium, chromedriver):
        self.profile = tempfile.mkdtemp()
        self.driver = subprocess.Popen([chromedriver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.base = None
        for line in self.driver.stdout:
            if "started successfully on port" in line:
                self.base = "http://127.0.0.1:" + line.rsplit("port", 1)[1].strip(" .\n")
                break
        options = {"args": FLAGS + [f"--user-data-dir={self.profile}"], "binary": chromium}
        wanted = {
            "browserName": "chrome", "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        session = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.session = f"/session/{session['sessionId']}"
        # the page of a new tab asks for its own parts
        self.open("about:blank", WIDTHS[0])
        time.sleep(1)
        self.requests()

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"].splitlines()[0]) from None

    def command(self, name, args):
        body = {"cmd": name, "params": args}
        return self.call("POST", f"{self.session}/goog/cdp/execute", body)

    def open(self, url, width, height=1000):
        # the window of a headless Chromium has a least width; a device's screen has none
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.command("Emulation.setDeviceMetricsOverride", size)
        self.call("POST", f"{self.session}/url", {"url": url})

    def run(self, script):
        return self.call("POST", f"{self.session}/execute/sync", {"script": script, "args": []})

    def until(self, script, seconds=20):
        end = time.time() + seconds
        while time.time() < end:
            if self.run(script):
                return True
            time.sleep(0.1)
        return False

    def logs(self, kind):
        return self.call("POST", f"{self.session}/se/log", {"type": kind})

    def requests(self):
        """Addresses that were asked for since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.logs("performance")]
        sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("data:", "blob:"))]

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.call("GET", f"{self.session}/screenshot")))

    def close(self):
        try:
            self.call("DELETE", self.session)
        finally:
            self.driver.terminate()
            self.driver.wait()
            shutil.rmtree(self.profile, ignore_errors=True)


class Page:
    """What is wrong with one page at one width."""

    def __init__(self, name):
        self.name = name
        self.faults = []
        self.seen = ""

    def expect(self, holds, text):
        if not holds:
            self.faults.append(text)


def order(cell):
    """How a cell sorts: as a number where it is one."""
    try:
        return (0, float(cell), "")
    except ValueError:
        return (1, 0.0, cell)


def check_table(page, browser):
    for name, once, twice, first, second in browser.run(SORT):
        page.expect({first, second} == {"ascending", "descending"}, f"column {name}: no aria-sort")
        cells = [cell for cell in once if cell]
        numbers = [order(cell) for cell in cells]
        if cells and all(kind == 0 for kind, _, _ in numbers):
            down = sorted(numbers, reverse=first == "descending")
            page.expect(numbers == down, f"column {name} is not sorted: {once[:5]}")
        elif len(set(once)) > 1:
            page.expect(once != twice, f"column {name} does not turn round")


def check_page(browser, url, name, width, own, charts):
    """Opens a page, waits until it is drawn, looks at all of it."""
    page = Page(f"{name} at {width} px")
    browser.open(url, width)
    ready = "return document.querySelectorAll('%s').length > 0" % ("path.line, circle.dot" if charts else "tbody tr")
    page.expect(browser.until(ready), "nothing is drawn")
    look = browser.run(LOOK)
    page.expect(look["width"] <= width, f"the page is {look['width']} px wide")
    page.expect("null" not in look["text"].split("Spec")[0].split(), "the text says null")
    page.expect("NaN" not in look["text"] and "undefined" not in look["text"], "the text says NaN or undefined")
    if charts:
        page.expect(look["charts"] > 0 and look["lines"] > 0, "no line is drawn")
        page.expect(all(look["drawn"]), f"a chart is empty: {look['drawn']}")
        page.expect(all(box > 100 for box in look["boxes"]), f"a chart has no width: {look['boxes']}")
        page.expect(any(c.isdigit() for c in browser.run(HOVER)), "a hover shows no values")
        before, zoomed, after = browser.run(ZOOM)
        page.expect(before != zoomed and before == after, "a drag does not zoom, or a double click does not zoom out")
    check_table(page, browser)
    outside = [url for url in browser.requests() if not url.startswith(own)]
    page.expect(not outside, f"asks elsewhere: {outside}")
    errors = [entry["message"] for entry in browser.logs("browser") if entry["level"] in ("SEVERE", "WARNING")]
    page.expect(not errors, f"console: {errors}")
    page.seen = f"{look['charts']} charts, {sum(look['drawn'])} marks, {look['rows']} rows"
    return page


def reports(browser, data, pictures):
    """Every report page: of experiments, and of the first trials of each run."""
    for run in sorted(path for path in data.iterdir() if path.is_dir()):
        whole = [path for path in run.glob("*_report.html") if not re.search(r"_t\d+_report\.html$", path.name)]
        trials = sorted(set(run.glob("*_report.html")) - set(whole))[:2]
        for path in whole + trials:
            for width in WIDTHS:
                page = check_page(browser, path.as_uri(), path.name, width, path.as_uri(), charts=True)
                if pictures and path in whole + trials[:1]:
                    browser.screenshot(pictures / f"{path.stem}_{width}.png")
                yield page


def live(browser, program, data, pictures):
    """The list and every run, from a server that is started here."""
    server = subprocess.Popen([program, "serve", str(data), "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        own = server.stdout.readline().split()[0]
        for width in WIDTHS:
            browser.open("about:blank", width)
            page = check_page(browser, own, "serve", width, own, charts=False)
            hardware = browser.run("return document.querySelector('.hardware').innerText")
            page.expect("processor" in hardware and "gpu" in hardware, f"no hardware: {hardware}")
            if pictures:
                browser.screenshot(pictures / f"serve_{width}.png")
            yield page
            runs = browser.run("return [...document.querySelectorAll('td a')].map((a) => a.href)")
            for url in runs:
                name = f"serve {url.split('run=')[-1]}"
                page = check_page(browser, url, name, width, own, charts=True)
                browser.run("document.getElementById('replay').click()")
                played = "const i = document.querySelector('img.replay'); return i !== null && i.naturalWidth > 0"
                page.expect(browser.until(played, 60), "the agent does not play")
                browser.run("document.getElementById('replay').scrollIntoView()")
                errors = [entry["message"] for entry in browser.logs("browser") if entry["level"] == "SEVERE"]
                page.expect(not errors, f"console: {errors}")
                if pictures:
                    browser.screenshot(pictures / f"serve_run_{runs.index(url)}_{width}.png")
                yield page
    finally:
        server.terminate()
        server.wait()


def watch(browser, program, data, spec):
    """A run that is being trained: its page goes on by itself, and sees when nobody trains it any more."""
    page = Page("serve, a run that is being trained")
    server = subprocess.Popen([program, "serve", str(data), "--port", "0"], stdout=subprocess.PIPE, text=True)
    before = set(data.iterdir())
    training = subprocess.Popen([program, "train", str(spec), "--data", str(data), "--quiet"])
    frame = "return Number(document.querySelector('tbody tr td:nth-child(2)')?.dataset.value ?? 0)"
    chip = "return document.querySelector('.chip') !== null && document.querySelector('.chip').innerText === '%s'"
    try:
        own = server.stdout.readline().split()[0]
        end = time.time() + 20
        while not (new := set(data.iterdir()) - before) and time.time() < end:
            time.sleep(0.1)
        if not new:
            raise RuntimeError("the training made no folder")
        browser.open(f"{own}#run={new.pop().name}", WIDTHS[0])
        page.expect(browser.until(f"{frame} > 0"), "no rows come")
        page.expect(browser.run(chip % "running"), "it does not say that it is running")
        first = browser.run(frame)
        page.expect(browser.until(f"{frame} > {first}"), f"it stays at frame {first}")
        training.kill()
        training.wait()
        page.expect(browser.until(chip % "interrupted"), "it does not see the end")
        page.seen = f"from frame {first} to {browser.run(frame)}"
    finally:
        for process in (training, server):
            process.kill()
            process.wait()
    yield page


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--train", type=pathlib.Path, metavar="SPEC")
    parser.add_argument("--screenshots", type=pathlib.Path, metavar="FOLDER")
    args = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    chromedriver = shutil.which("chromedriver")
    if not chromium or not chromedriver:
        print("chromium or chromedriver is not installed")
        return 3
    if args.screenshots:
        args.screenshots.mkdir(parents=True, exist_ok=True)
    wrong = 0
    browser = Browser(chromium, chromedriver)
    try:
        data = args.data.resolve()
        pages = 0
        program = str(args.program)
        sources = [reports(browser, data, args.screenshots), live(browser, program, data, args.screenshots)]
        if args.train:
            sources.append(watch(browser, program, data, args.train))
        for source in sources:
            for page in source:
                pages += 1
                wrong += bool(page.faults)
                print(f"{page.name}: {'; '.join(page.faults) or 'fine'} ({page.seen})", flush=True)
    finally:
        browser.close()
    print(f"{pages} pages, {wrong} with faults")
    return 1 if wrong or not pages else 0


if __name__ == "__main__":
    sys.exit(main())
