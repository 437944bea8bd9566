// Starts the page.
import "./styles/base.css";
import "./styles/shell.css";
import "./styles/chat.css";
import { mount } from "svelte";
import App from "./App.svelte";
import { app } from "./lib/app.svelte";
import { preferred, speak } from "./lib/words.svelte";

await speak(preferred());
app.start();
const target = document.getElementById("app");
if (target) mount(App, { target });
