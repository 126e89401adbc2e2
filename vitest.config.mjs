import { defineConfig } from 'vitest/config'

// The compiled tests run; the code under test is loaded by Node itself, as in a worker, never transformed.
export default defineConfig({
  test: {
    include: ['dist/test/**/*.test.js'],
    exclude: ['**/node_modules/**'],
    pool: 'forks',
    // Snapshots stand beside the sources of their tests.
    resolveSnapshotPath: (path, extension) => path.replace('/dist/test/', '/test/').replace(/\.js$/, extension),
    testTimeout: 60_000,
    hookTimeout: 60_000,
    teardownTimeout: 10_000,
    server: { deps: { external: [/\/dist\/(src|workers|bench)\//, /\/node_modules\//] } },
  },
})
