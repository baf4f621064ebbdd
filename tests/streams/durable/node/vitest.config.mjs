export default {
  test: { include: ["*.test.mjs"], testTimeout: 30_000, hookTimeout: 30_000 },
}
