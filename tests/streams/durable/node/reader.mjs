// Reads a stream of JSON with the protocol's JavaScript client, live, to its end: `reader.mjs <url> <live>`. A line for
// each value. The client comes back by itself when an answer ends; when its connection breaks, it says so, and the
// program goes on from the offset of the last batch.
import { stream } from "@durable-streams/client"

const [url, live] = process.argv.slice(2)
const backoffOptions = { initialDelay: 50, maxDelay: 200, multiplier: 1.5 }
let offset = "-1"

for (;;) {
  try {
    const response = await stream({ url, offset, live, backoffOptions })
    response.subscribeJson(async (batch) => {
      for (const item of batch.items) console.log(JSON.stringify(item))
      offset = batch.offset
    })
    await response.closed
    break
  } catch (error) {
    console.error(`broken at ${offset}: ${error.message}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
console.log("end")
