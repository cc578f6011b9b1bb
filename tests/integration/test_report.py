"""The page of `fairseq-admin report` in a browser: of real runs, some with hostile texts."""

import json
import logging
import os
import re
import shutil
import tempfile
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
from markupsafe import escape
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from fairseq_admin_cli.main import main

SCRIPT = '<script>document.title="x"</script>'
IMAGE = "\"><img src=x onerror=document.title=1> ' &amp; {{ 1 }}"
WORD = "Donaudampfschiff" * 25  # 400 letters
ARABIC = "ذهبت القطة إلى المدينة"
HOSTILE = {0: SCRIPT, 3: IMAGE, 6: WORD, 9: ARABIC}  # by sentences that are shown
LABEL = 'post_ln <i>&"run"'
TITLE = 'Runs <b>of</b> "today"'
SIZES = {"phone": (360, 740, True), "desktop": (1280, 900, False)}
DECODING = "--beam 2 --max-tokens 2000 --cpu"
FLAGS = "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
FLAGS += "--disable-background-networking --disable-component-update --disable-dev-shm-usage "
FLAGS += "--host-resolver-rules=MAP%20*%20~NOTFOUND"  # no network

LOOK = """
document.querySelectorAll("details").forEach(d => d.open = true);
const root = document.documentElement;
const inside = table => {
  const box = table.parentElement;
  const style = getComputedStyle(box).overflowX;
  return (style == "auto" || style == "scroll")
    && box.getBoundingClientRect().right <= root.clientWidth;
};
const all = name => Array.from(document.querySelectorAll(name));
return {
  widened: root.scrollWidth > root.clientWidth,
  broken_images: all("img").filter(i => !i.complete || i.naturalWidth == 0).length,
  images_without_words: all("img").filter(i => !i.alt.trim()).length,
  tables_outside: all("table").filter(t => !inside(t)).length,
  headers_without_scope: all("th:not([scope])").length,
  scripts: document.scripts.length,
  small_text: parseFloat(getComputedStyle(document.body).fontSize) < 14,
};
"""


@pytest.fixture(scope="module")
def browser():
    """A Chromium without network. Where there is none, skips; fails where CI=true."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (binary and driver):
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing("no chromium and chromedriver on the PATH")
    for library in ("selenium", "urllib3"):  # which log every word to and from the browser
        logging.getLogger(library).setLevel(logging.WARNING)
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in FLAGS.split():
        options.add_argument(flag.replace("%20", " "))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options.add_argument(f"--user-data-dir={profile}")
        with webdriver.Chrome(options=options, service=Service(driver)) as chromium:
            yield chromium


@pytest.fixture(scope="module")
def runs(admin, transformer, corpus, lab, tmp_path_factory):
    """A Post-LN run that was evaluated, its translations then hostile and its configuration long;
    an Admin run as `fairseq-train` leaves it, with its log; and records of many more."""
    root = tmp_path_factory.mktemp("runs")
    evaluated, plain = root / "evaluated", root / "plain"
    shutil.copytree(transformer.parent, evaluated)
    command = [lab.bin / "python", "-W", "ignore", lab.plugin.parent / "scripts"]
    command += ["records.evaluation", evaluated, "--data", corpus, "--decoding", DECODING]
    lab.run(command).ok()
    plain.mkdir()
    shutil.copy(admin.checkpoints[120], plain)
    (plain / "train.log").write_text(admin.run.output)
    path = evaluated / "eval" / "record.json"
    real = path.read_text()
    record = json.loads(real)
    record["config"]["common"]["long"] = "option" * 500
    path.write_text(json.dumps(record))
    generated = path.with_name("generate.txt")
    text = generated.read_text()
    for i, words in HOSTILE.items():
        text = re.sub(rf"(?m)^(D-{i}\t\S+\t).*", lambda m, words=words: m[1] + words, text)
    generated.write_text(text)
    (evaluated / "figures").mkdir()
    matplotlib.image.imsave(evaluated / "figures" / '"><b>x.png', np.zeros((40, 4000)))
    evaluated = evaluated.rename(root / LABEL)
    others = [root / f"iwslt14_de_en_post_ln_6l_seed{i}" for i in range(5)]
    for other in others:
        (other / "eval").mkdir(parents=True)
        (other / "eval" / "record.json").write_text(real)
    return SimpleNamespace(folders=[evaluated, plain, *others], record=record)


@pytest.fixture(scope="module")
def page(runs, lab, tmp_path_factory):
    """The page of all runs."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    command = [lab.bin / "fairseq-admin", "report", *runs.folders, "--output", path]
    run = lab.run([*command, "--title", TITLE]).ok()
    assert run.last_line == f"wrote {path}"
    return path


def faults(browser, path, size):
    """What is wrong with the page *path* on a screen of *size*, by name."""
    width, height, mobile = SIZES[size]
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get_log("browser"), browser.get_log("performance")  # forget those of the page before
    browser.get(path.as_uri())
    found = {name for name, wrong in browser.execute_script(LOOK).items() if wrong}
    if browser.title != TITLE:
        found.add("title")
    if browser.get_log("browser"):
        found.add("console")
    events = [json.loads(row["message"])["message"] for row in browser.get_log("performance")]
    requests = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    urls = [request["request"]["url"] for request in requests]
    assert path.as_uri() in urls  # the log tells of requests
    if any(not url.startswith(("file:", "data:")) for url in urls) or urls.count(urls[0]) > 1:
        found.add("requests")
    return found


def texts(browser, selector):
    return browser.execute_script(
        "return Array.from(document.querySelectorAll(arguments[0])).map(e => e.textContent)",
        selector,
    )


@pytest.mark.parametrize("size", SIZES)
def test_the_page_has_no_fault(browser, page, size):
    assert faults(browser, page, size) == set()


BREAKS = {
    "title": (re.escape(escape(SCRIPT)), SCRIPT),
    "scripts": (re.escape(escape(SCRIPT)), SCRIPT),
    "console": (re.escape(escape(IMAGE)), IMAGE),
    "widened": (r"\.box { overflow-x: auto;", ".box {"),
    "tables_outside": (r"\.box { overflow-x: auto;", ".box {"),
    "broken_images": (r"data:image/png;base64,[^\"]*", "data:image/png;base64,iVBORw0KGgo="),
    "images_without_words": (r' alt="[^"]*"', ' alt=""'),
    "headers_without_scope": (r' scope="col"', ""),
    "requests": ("<style>", '<link rel="stylesheet" href="http://127.0.0.1:9/x.css"><style>'),
    "small_text": ("font: 16px", "font: 12px"),
}
POLICY = r'<meta http-equiv="Content-Security-Policy"[^>]*>'


@pytest.mark.parametrize("fault", BREAKS)
def test_a_broken_page_is_noticed(browser, page, tmp_path, fault):
    pattern, other = BREAKS[fault]
    text = re.sub(POLICY, "", page.read_text(encoding="utf-8"))
    text, count = re.subn(pattern, lambda match: other, text)
    assert count
    broken = tmp_path / "broken.html"
    broken.write_text(text, encoding="utf-8")
    assert fault in faults(browser, broken, "phone")


def test_the_policy_stops_what_were_not_escaped(browser, page, tmp_path):
    text = page.read_text(encoding="utf-8").replace(str(escape(SCRIPT)), SCRIPT)
    broken = tmp_path / "broken.html"
    broken.write_text(text, encoding="utf-8")
    found = faults(browser, broken, "phone")
    assert "scripts" in found and "title" not in found


def test_hostile_translations_are_text(browser, page):
    faults(browser, page, "desktop")
    articles = texts(browser, "article")
    assert len(articles) == 10
    shown = texts(browser, "article .hypothesis")
    assert [shown[i // 3] for i in HOSTILE] == list(HOSTILE.values())
    direction = "return getComputedStyle(document.querySelectorAll('.hypothesis')[3]).direction"
    assert browser.execute_script(direction) == "rtl"
    assert browser.title == TITLE and texts(browser, "h1") == [TITLE]
    assert LABEL in texts(browser, "thead th")


def test_the_page_says_what_was_run_and_what_came_out(browser, page, runs):
    faults(browser, page, "desktop")
    headings = texts(browser, "h2")
    assert headings[:5] == ["Runs", "Scores", "Curves", "Profile", "Translations"]
    assert texts(browser, "nav a") == headings
    body = texts(browser, "main")[0]
    for score in runs.record["scores"].values():
        assert f"{score['score']:.2f}" in body and score["signature"] in body
    for text in (runs.record["commit"], "120", "3-3", "transformer_admin", "perplexity"):
        assert text in body
    sublayers = texts(browser, "#profile details")[0]
    assert "encoder.layers.2.ffn" in sublayers and "decoder input" in sublayers
    assert f"bash scripts/evaluate.sh {runs.folders[1]}" in texts(browser, ".note code")
    assert texts(browser, "#figures figcaption") == ['"><b>x.png']
    alts = browser.execute_script("return Array.from(document.images).map(i => i.alt)")
    assert "Perplexity over updates" in alts[0] and "encoder: from 1.00 to" in alts[1]


def test_a_log_alone_is_drawn(runs, tmp_path, capsys):
    log = tmp_path / "log"
    log.mkdir()
    shutil.copy(runs.folders[1] / "train.log", log)
    path = tmp_path / "page.html"
    main(["report", str(log), "--output", str(path)])
    assert capsys.readouterr().out == f"wrote {path}\n"
    text = path.read_text(encoding="utf-8")
    assert text.count("<img ") == 1 and "after 120 updates" in text and "<nav" not in text
