// Two themes and the colours of every picture: the same as src/pophood/look/figures/theme.py (a test
// compares). Categories have the colours of Okabe and Ito (2008). Viridis grows evenly from dark to bright
// (van der Walt and Smith, 2015). The diverging blue-orange scales can be told apart with every common colour
// blindness.

export type ThemeName = "light" | "dark";
export type Colour = readonly [red: number, green: number, blue: number]; // 0 to 255

/** Name of a scale, and its colours at equal steps, with linear interpolation between them. */
export const SCALES = {
  viridis: [
    "#440154",
    "#482475",
    "#414487",
    "#355f8d",
    "#2a788e",
    "#21918c",
    "#22a884",
    "#44bf70",
    "#7ad151",
    "#bddf26",
    "#fde725",
  ],
  "blue-white-orange": ["#08519c", "#3a85c6", "#8fbfe0", "#f2f2f2", "#f7b267", "#e07b13", "#a34700"],
  "blue-black-orange": ["#7cc4ff", "#3a8fd6", "#1f4f7d", "#22272e", "#7d4a12", "#d67f1f", "#ffb661"],
} as const;
export type Scale = keyof typeof SCALES;

/** The colours of a picture. Accents: blue, orange, green, purple, then two lighter ones. */
export interface Theme {
  name: ThemeName;
  background: string;
  surface: string;
  text: string;
  muted: string;
  line: string;
  accents: readonly string[];
  sequential: Scale;
  diverging: Scale;
}

export const LIGHT: Theme = {
  name: "light",
  background: "#ffffff",
  surface: "#f3f5f7",
  text: "#1b1f24",
  muted: "#57606a",
  line: "#c4ccd4",
  accents: ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"],
  sequential: "viridis",
  diverging: "blue-white-orange",
};
export const DARK: Theme = {
  name: "dark",
  background: "#0d1117",
  surface: "#1c232c",
  text: "#e6edf3",
  muted: "#9aa5b1",
  line: "#3d4752",
  accents: ["#56b4e9", "#e69f00", "#00b583", "#cc79a7", "#f0e442", "#d55e00"],
  sequential: "viridis",
  diverging: "blue-black-orange",
};
export const THEMES: Record<ThemeName, Theme> = { light: LIGHT, dark: DARK };

/** Return "#0d1117" as three numbers. */
export function rgb(colour: string): Colour {
  return [1, 3, 5].map((at) => Number.parseInt(colour.slice(at, at + 2), 16)) as unknown as Colour;
}

const STOPS = Object.fromEntries(
  Object.entries(SCALES).map(([name, colours]) => [name, colours.map(rgb)]),
) as Record<Scale, Colour[]>;

/** Return the colour at `share` (clipped to 0 to 1) of a scale. */
export function colourAt(scale: Scale, share: number): Colour {
  const stops = STOPS[scale];
  const place = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const left = Math.min(Math.floor(place), stops.length - 2);
  const part = place - left;
  const first = stops[left] as Colour;
  const second = stops[left + 1] as Colour;
  const mixed = (i: 0 | 1 | 2): number => Math.round(first[i] + (second[i] - first[i]) * part);
  return [mixed(0), mixed(1), mixed(2)];
}

/** Return a colour mixed into another: all of it for a share of 1. */
export function mixed(colour: string, into: string, share: number): Colour {
  const [from, to] = [rgb(into), rgb(colour)];
  return from.map((one, i) => Math.round(one + ((to[i] as number) - one) * share)) as unknown as Colour;
}

/** Return a colour as CSS writes it. */
export function css([red, green, blue]: Colour): string {
  return `rgb(${red}, ${green}, ${blue})`;
}

/** Return the relative luminance of a colour, 0 for black to 1 for white (WCAG 2.2). */
export function luminance(colour: Colour): number {
  const [red, green, blue] = colour.map((channel) => {
    const share = channel / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

/** Return black or white, whichever is readable on this colour. */
export function readableOn(colour: Colour): string {
  const bright = luminance(colour);
  return (bright + 0.05) / 0.05 >= 1.05 / (bright + 0.05) ? "#000000" : "#ffffff";
}
