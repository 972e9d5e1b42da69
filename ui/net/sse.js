/** Server-sent events out of a response (WHATWG HTML, 9.2.6); an EventSource could not send a key. */

/** @typedef {{ kind: string, text: string | null, id: string | null }} Block text is null where only the place moved on */

/**
 * @param {Response} response
 * @param {() => void} [heard] called whenever something came, a comment too
 * @returns {AsyncGenerator<Block>}
 */
export async function* readEvents(response, heard = () => {}) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let block = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      heard();
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/); // a carriage return at the end may be half of a pair
      rest = lines.pop() ?? "";
      for (const line of lines) {
        if (line !== "") {
          block.push(line);
          continue;
        }
        const found = parse(block);
        block = [];
        if (found) yield found;
      }
    }
  } finally {
    await reader.cancel().catch(() => {}); // a stream that was aborted cannot be cancelled again
  }
}

/** @param {string[]} lines @returns {Block | null} */
function parse(lines) {
  let kind = "message";
  let id = null;
  const data = [];
  for (const line of lines) {
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line) ?? ["", "", ""];
    if (field === "event") kind = value;
    else if (field === "data") data.push(value);
    else if (field === "id" && !value.includes("\0")) id = value;
  }
  if (!data.length) return id === null ? null : { kind, text: null, id };
  return { kind, text: data.join("\n"), id };
}
