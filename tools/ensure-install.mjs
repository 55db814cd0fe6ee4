/**
 * Runs before every npm script, on whatever Node there is (20 or later): installs the dependencies, among them the pinned Node, when they
 * are missing or not those of package-lock.json. Makes `npm test` and `npm run demo` work as the first command after git clone.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'

const root = new URL('../', import.meta.url)

if (!isInstalled()) {
  console.error('installing dependencies (once, about 20 s) …')
  const started = Date.now()
  const npm = process.env.npm_execpath
  const ci = ['ci', '--no-audit', '--no-fund', '--no-update-notifier']
  // What npm prints goes to stderr, so that stdout holds only what the script itself prints.
  const options = { cwd: root, stdio: ['ignore', 2, 2] }
  const { status, error } = npm ? spawnSync(process.execPath, [npm, ...ci], options) : spawnSync('npm', ci, options)
  if (status !== 0) {
    console.error(`npm ci failed${error ? `: ${error.message}` : ''}; nothing was run`)
    process.exit(status || 1)
  }
  console.error(`dependencies installed in ${Math.round((Date.now() - started) / 1000)} s`)
}

// npm looks for programs in node_modules/.bin first, so what follows runs on the pinned Node wherever that exists (Linux).
const major = Number(process.versions.node.split('.')[0])
if (!existsSync(new URL('node_modules/.bin/node', root)) && major < 24) {
  console.error(
    `certferry needs Node 24 or later; this is ${process.version}, and no pinned Node exists for ${process.platform}`,
  )
  process.exit(1)
}

/** Compares what npm noted in node_modules with the lockfile: by version, because times say nothing after git checkout. */
function isInstalled() {
  const wanted = packagesOf('package-lock.json')
  const installed = packagesOf('node_modules/.package-lock.json')
  if (!wanted || !installed) return false
  return Object.entries(wanted).every(([path, { version, optional, link }]) => {
    if (path === '' || link || !path.startsWith('node_modules/')) return true
    const found = installed[path]
    return found ? found.version === version : optional === true
  })
}

function packagesOf(file) {
  try {
    return JSON.parse(readFileSync(new URL(file, root), 'utf8')).packages
  } catch {
    return undefined
  }
}
