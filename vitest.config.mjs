import { availableParallelism } from 'node:os'
import { defineConfig } from 'vitest/config'

// Machines that run free want every core, and peers on TAP devices want answers in time: one file at a time.
const free = ['e2e/calibrate', 'e2e/cli', 'e2e/machine', 'e2e/paper', 'e2e/tap', 'e2e/waits', 'torture/torture'].map(
  name => `dist/test/${name}.test.js`,
)

// The compiled tests run; the code under test is loaded by Node itself, as in a worker, never transformed.
export default defineConfig({
  test: {
    exclude: ['**/node_modules/**'],
    pool: 'forks',
    // Snapshots stand beside the sources of their tests.
    resolveSnapshotPath: (path, extension) => path.replace('/dist/test/', '/test/').replace(/\.js$/, extension),
    testTimeout: 60_000,
    hookTimeout: 60_000,
    teardownTimeout: 10_000,
    server: { deps: { external: [/\/dist\/(src|workers|bench)\//, /\/node_modules\//] } },
    projects: [
      {
        extends: true,
        // In controlled runs and in virtual time one thread runs at a time.
        test: {
          name: 'in turns',
          include: ['dist/test/**/*.test.js'],
          exclude: free,
          maxWorkers: availableParallelism(),
          setupFiles: ['dist/test/helpers/affinity.js'],
          sequence: { groupOrder: 0 },
        },
      },
      { extends: true, test: { name: 'free', include: free, maxWorkers: 1, sequence: { groupOrder: 1 } } },
    ],
  },
})
