// The script of a page that `pophood look --save` writes.
import { THEMES } from "../draw/theme";

const dark = matchMedia("(prefers-color-scheme: dark)").matches;
document.documentElement.dataset["drawn"] = THEMES[dark ? "dark" : "light"].name;
