// Reads a stream of JSON with the protocol's JavaScript client, live, to its end: `reader.mjs <url> <live>`. A line for
// each value. The client comes back by itself when an answer ends; when a connection breaks, or it gives up, the
// program goes on from the offset of the last batch.
import { stream } from "@durable-streams/client"

const [url, live] = process.argv.slice(2)
const backoffOptions = { initialDelay: 50, maxDelay: 200, multiplier: 1.5 }
let offset = "-1"
let ended = false

while (!ended) {
  try {
    const response = await stream({ url, offset, live, backoffOptions })
    await new Promise((resolve, reject) => {
      response.subscribeJson(async (batch) => {
        for (const item of batch.items) console.log(JSON.stringify(item))
        offset = batch.offset
        ended = batch.streamClosed
        if (ended) resolve()
      })
      // It says so before the last batch has been handed over.
      response.closed.then(() => setTimeout(resolve, 200), reject)
    })
    if (!ended) console.error(`${live}: left at ${offset}`)
  } catch (error) {
    console.error(`${live}: broken at ${offset}: ${error.message}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
console.log("end")
process.exit()
