"""The page of `sluice bench --html` in headless Chromium: every plot is drawn and nothing fails. Not among the tests that
always run, because a browser is large; it needs: apt-get install chromium chromium-driver; pip install selenium

  python tests/e2e/draw_bench.py [SCREENSHOT.png]"""

import pathlib
import sys
import tempfile

from selenium.webdriver.common.by import By

from browse_page import browser
from harness import Daemon, run_sluice

PLOTS = ["First token", "Inter-token", "Whole request", "Between messages"] + \
        ["First token", "Inter-token", "Throughput", "In flight"]


def bench(daemon, *flags):
    end = run_sluice(daemon, "bench", *flags)
    assert end.returncode == 0, end.stderr


def check(driver, path, runs):
    driver.get(path.as_uri())
    captions = driver.execute_script(
        "return [...document.querySelectorAll('figcaption')].map((caption) => caption.firstChild.textContent)")
    assert captions == PLOTS, captions
    for figure in driver.find_elements(By.CSS_SELECTOR, "figure"):
        assert len(figure.find_elements(By.CSS_SELECTOR, "polyline")) >= runs
    assert "NaN" not in driver.page_source.split("</script>")[-1]
    errors = [entry["message"] for entry in driver.get_log("browser")]
    assert errors == [], errors


def main():
    daemon = Daemon()
    driver = browser()
    try:
        with tempfile.TemporaryDirectory(prefix="sluice-bench-") as directory:
            folder = pathlib.Path(directory)
            for name, rate in (("a", 8), ("b", 12)):
                bench(daemon, f"--rate={rate}", "--duration=10s", "--warmup=1s", "--prompt-tokens=lognormal:100:1:1024",
                      "--max-new-tokens=uniform:20:100", "--slo-ttft=100ms", "--slo-itl=5ms", "--bypass-prefix-cache",
                      f"--json={folder / name}.json", f"--html={folder / name}.html")
            bench(daemon, "--compare", str(folder / "a.json"), str(folder / "b.json"), f"--html={folder / 'both.html'}")
            check(driver, folder / "a.html", 1)
            check(driver, folder / "both.html", 2)
            driver.set_window_size(1200, 1500)
            if len(sys.argv) > 1:
                driver.save_screenshot(sys.argv[1])
    finally:
        driver.quit()
        daemon.kill()
    print("ok")


if __name__ == "__main__":
    main()
