"""The page at / in headless Chromium: a story is written, forked and gone on with. Not among the tests that always run,
because a browser is large; it needs: apt-get install chromium chromium-driver; pip install selenium

  python tests/e2e/browse_page.py [SCREENSHOT.png]"""

import re
import sys

from selenium import webdriver
from selenium.webdriver.common.by import By

from harness import Daemon, PATIENCE, wait_until

OPENING = "Once upon a time there was a miller"


def browser():
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,840", "--hide-scrollbars"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    driver.set_page_load_timeout(PATIENCE)
    return driver


class Page:
    def __init__(self, driver):
        self.driver = driver

    def click(self, name):
        self.driver.find_element(By.ID, name).click()

    def fill(self, name, value):
        field = self.driver.find_element(By.ID, name)
        field.clear()
        field.send_keys(value)

    def text(self, selector):
        return [e.get_property("textContent") for e in self.driver.find_elements(By.CSS_SELECTOR, selector)]

    def wait_written(self):
        wait_until(lambda: not self.driver.find_element(By.ID, "stop").is_enabled(), "the story is written")


def check(page, daemon):
    wait_until(lambda: "576 KiB at any length" in page.text("#state")[0], "the model is described")
    assert "classics-12m, 12 M parameters, bf16, on cpu" == page.text("#model")[0]

    page.fill("opening", OPENING)
    page.fill("seed", "11")
    page.fill("max_tokens", "600")
    page.click("write")
    lengths = set()
    wait_until(lambda: lengths.add(len(page.text(".story")[0])) or len(lengths) > 3, "the text grows while it is written")
    page.click("stop")
    page.wait_written()
    daemon.wait_idle()

    page.fill("max_tokens", "60")
    page.click("write")
    page.wait_written()
    expected = daemon.generate(OPENING, sampling={"temperature": 0.8, "seed": 11}, stop={"max_new_tokens": 60}).only.text
    story = page.text(".story")[0]
    assert story == OPENING + expected, (story, expected)
    assert re.fullmatch(r"60 tokens · after a prompt of \d+ · \d+ tokens/s · state 576 KiB", page.text(".figures")[0])

    pieces = page.driver.find_elements(By.CSS_SELECTOR, ".branch:nth-child(1) .piece")
    pieces[len(pieces) // 2].click()
    prefix = page.text(".story")[1]
    assert OPENING < prefix and story.startswith(prefix) and len(prefix) < len(story)
    page.fill("seed", "12")
    page.click("continue")
    page.wait_written()
    first, second = page.text(".story")
    assert first.startswith(story) and len(first) > len(story), "the first goes on"
    assert second.startswith(prefix) and len(second) > len(prefix) and not second.startswith(story), "the fork another way"
    assert all("tokens/s" in figures for figures in page.text(".figures"))


def main():
    daemon = Daemon("--http_listen=127.0.0.1:0")
    driver = browser()
    try:
        driver.get(f"http://{daemon.http}/")
        check(Page(driver), daemon)
        complaints = [entry["message"] for entry in driver.get_log("browser")]
        assert not complaints, complaints
        if len(sys.argv) > 1:
            driver.save_screenshot(sys.argv[1])
        daemon.wait_idle()
    finally:
        driver.quit()
        assert daemon.stop() == 0, daemon.stderr()
    print("the page works")


if __name__ == "__main__":
    main()
