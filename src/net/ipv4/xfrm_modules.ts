/** xfrm_modules.ts - brings the modules of IPsec into the image: they do nothing until they are asked for. */
import './ah4.js'
import './esp4.js'
import './ipcomp.js'
import './xfrm4_tunnel.js'
import '../xfrm/xfrm_user.js'
