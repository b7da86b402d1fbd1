// In one process: they share a run, a server and a browser.
import "./accessibility.mjs";
import "./beside.mjs";
import "./correct.mjs";
import "./display.mjs";
import "./formats.mjs";
import "./segment.mjs";
import "./prompts.mjs";
import "./faults.mjs";
import "./firefox.mjs";
import "./server.mjs";
