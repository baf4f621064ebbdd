// The protocol's JavaScript client, at work against the server at DURABLE_STREAMS_URL.
import { DurableStream, IdempotentProducer, stream } from "@durable-streams/client"
import { expect, test } from "vitest"

const base = process.env.DURABLE_STREAMS_URL
let count = 0
const fresh = () => `${base}/client-${Date.now()}-${++count}/å b`.replace("å b", encodeURIComponent("å b"))

const create = (contentType, more = {}) => DurableStream.create({ url: fresh(), contentType, ...more })

for (const live of ["sse", "long-poll"]) {
  test(`reads JSON once and in order, by ${live}, while it is written, to its end`, async () => {
    const handle = await create("application/json")
    const seen = []
    const response = await stream({ url: handle.url, offset: "-1", live })
    const reading = new Promise((resolve, reject) => {
      response.subscribeJson(async (batch) => {
        seen.push(...batch.items)
        if (batch.items.some((item) => item.last)) resolve()
      })
      response.closed.catch(reject)
    })
    for (let n = 0; n < 20; n++) await handle.append(JSON.stringify({ n, text: "é\n\u2028𝄞" }))
    await handle.close({ body: JSON.stringify({ n: 20, last: true }) })
    await reading
    await response.closed
    expect(seen.map((item) => item.n)).toEqual([...Array(21).keys()])
    expect(seen[0].text).toBe("é\n\u2028𝄞")
  })
}

test("goes on where it left off", async () => {
  const handle = await create("application/json")
  await handle.append(JSON.stringify([{ n: 0 }, { n: 1 }]))
  const first = await stream({ url: handle.url, live: false })
  expect(await first.json()).toEqual([[{ n: 0 }, { n: 1 }]])
  await handle.append(JSON.stringify({ n: 2 }))
  const second = await stream({ url: handle.url, live: false, offset: first.offset })
  expect(await second.json()).toEqual([{ n: 2 }])
})

test("reads bytes as they were written, by SSE too", async () => {
  const handle = await create("application/octet-stream")
  const bytes = Uint8Array.from({ length: 256 }, (_, n) => n)
  await handle.append(bytes)
  await handle.close()
  const whole = await stream({ url: handle.url, live: false })
  expect(await whole.body()).toEqual(bytes)
  const events = await stream({ url: handle.url, offset: "-1", live: "sse" })
  expect(await events.body()).toEqual(bytes)
})

test("a producer's batches arrive once and in order, and a newer epoch shuts the older out", async () => {
  const handle = await create("application/json")
  const errors = []
  const options = { onError: (error) => errors.push(error), lingerMs: 1 }
  const producer = new IdempotentProducer(handle, "writer", options)
  for (let n = 0; n < 200; n++) producer.append(JSON.stringify({ n }))
  await producer.flush()
  const claiming = new IdempotentProducer(handle, "writer", { ...options, autoClaim: true })
  claiming.append(JSON.stringify({ n: 200 }))
  await claiming.flush()
  const response = await stream({ url: handle.url, live: false })
  const items = await response.json()
  expect(errors).toEqual([])
  expect(items.map((item) => item.n).slice(0, 200)).toEqual([...Array(200).keys()])
})

test("is told why not", async () => {
  expect(await DurableStream.head({ url: fresh() })).toEqual({ exists: false })
  await expect(stream({ url: fresh(), live: false })).rejects.toMatchObject({ status: 404 })
  const handle = await create("text/plain")
  await expect(
    DurableStream.create({ url: handle.url, contentType: "application/json" })
  ).rejects.toMatchObject({ status: 409 })
  await handle.close()
  await expect(handle.append("late")).rejects.toMatchObject({ status: 409 })
  await handle.delete()
  expect(await handle.head()).toEqual({ exists: false })
})
