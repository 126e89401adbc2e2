/** modules.ts - brings all modules of the packet filter into the image. */
import './ip_conntrack_standalone.js'
import './ip_queue.js'
import './ip_tables.js'
import './ipt_limit.js'
import './ipt_matches.js'
import './ipt_reject.js'
import './ipt_targets.js'
import './iptable_tables.js'
