// A PNG of a few pixels without a canvas: stored, not compressed. For rasters inside SVG files.

/** Return pixels (red, green, blue, alpha of each) as the address of a PNG image. */
export function pngUri(pixels: Uint8ClampedArray, columns: number, rows: number): string {
  const raw = new Uint8Array(rows * (1 + 4 * columns)); // each row begins with its filter, 0
  for (let row = 0; row < rows; row++) {
    raw.set(pixels.subarray(4 * columns * row, 4 * columns * (row + 1)), row * (1 + 4 * columns) + 1);
  }
  const head = new Uint8Array([...big(columns), ...big(rows), 8, 6, 0, 0, 0]);
  const bytes = [
    new Uint8Array([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
    chunk("IHDR", head),
    chunk("IDAT", stored(raw)),
    chunk("IEND", new Uint8Array()),
  ];
  let text = "";
  for (const part of bytes)
    for (let i = 0; i < part.length; i += 4096) text += String.fromCharCode(...part.subarray(i, i + 4096));
  return `data:image/png;base64,${btoa(text)}`;
}

function big(value: number): [number, number, number, number] {
  return [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];
}

function chunk(name: string, data: Uint8Array): Uint8Array {
  const body = new Uint8Array([...[...name].map((letter) => letter.charCodeAt(0)), ...data]);
  return new Uint8Array([...big(data.length), ...body, ...big(crc32(body))]);
}

/** Return a zlib stream of stored blocks. */
function stored(data: Uint8Array): Uint8Array {
  const parts: number[] = [0x78, 0x01];
  for (let at = 0; at < data.length || at === 0; at += 65535) {
    const block = data.subarray(at, at + 65535);
    const size = block.length;
    parts.push(at + 65535 >= data.length ? 1 : 0, size & 255, size >> 8, ~size & 255, (~size >> 8) & 255);
    for (const byte of block) parts.push(byte);
  }
  let a = 1;
  let b = 0;
  for (const byte of data) {
    a = (a + byte) % 65521;
    b = (b + a) % 65521;
  }
  return new Uint8Array([...parts, b >> 8, b & 255, a >> 8, a & 255]);
}

function crc32(data: Uint8Array): number {
  let crc = -1;
  for (const byte of data) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
