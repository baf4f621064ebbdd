// The protocol's own suite, against the server at DURABLE_STREAMS_URL.
import { runConformanceTests } from "@durable-streams/server-conformance-tests"

// "fetch failed" alone says nothing: the reason goes into the report.
const plainFetch = globalThis.fetch
globalThis.fetch = async (...given) => {
  try {
    return await plainFetch(...given)
  } catch (error) {
    if (error.cause) error.message += ` (${error.cause.code}: ${error.cause.message})`
    throw error
  }
}

runConformanceTests({ baseUrl: process.env.DURABLE_STREAMS_URL })
