package server

import (
	"bufio"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/bcrypt"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
)

// Authorizer decides whether a request may do what it asks for. Its methods may run at once.
type Authorizer interface {
	// Authorize returns nil, berth.ErrUnauthorized if it does not know who asks, or
	// berth.ErrDenied if it does.
	Authorize(r *http.Request, access Access) error
	// Challenge is the WWW-Authenticate header (RFC 9110, 11.6.1) for a request that was not
	// authorized.
	Challenge(access Access) string
}

// Access is what a request asks for.
type Access struct {
	// Repository is empty for what concerns the whole registry.
	Repository string
	// Action is "pull", "push", "delete", or "catalog"; empty for a mere knock at /v2/.
	Action string
}

func (c *call) authorize() error {
	if c.opts.Authorizer == nil {
		return nil
	}
	access := Access{Repository: c.req.Repository, Action: actionOf(c.req.Kind)}
	err := c.opts.Authorizer.Authorize(c.r, access)
	if err != nil && statusOf(err) == http.StatusUnauthorized {
		c.w.Header().Set("WWW-Authenticate", c.opts.Authorizer.Challenge(access))
	}
	return err
}

func actionOf(kind ocirequest.Kind) string {
	switch {
	case kind == ocirequest.Ping:
		return ""
	case kind == ocirequest.Catalog:
		return "catalog"
	case kind == ocirequest.BlobDelete || kind == ocirequest.ManifestDelete:
		return "delete"
	case writes(kind):
		return "push"
	}
	return "pull"
}

// basicChallenge asks for user name and password (RFC 7617).
const basicChallenge = `Basic realm="berth", charset="UTF-8"`

// Token authorizes whoever shows a secret: as a bearer token, or as the password of any user, which
// is what clients can be given that know of passwords only.
func Token(secret string) Authorizer { return tokenAuthorizer(secret) }

type tokenAuthorizer string

func (t tokenAuthorizer) Authorize(r *http.Request, _ Access) error {
	shown, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		_, shown, _ = r.BasicAuth()
	}
	if t == "" || subtle.ConstantTimeCompare([]byte(shown), []byte(t)) != 1 {
		return fmt.Errorf("%w: show the session's token", berth.ErrUnauthorized)
	}
	return nil
}

func (t tokenAuthorizer) Challenge(Access) string { return basicChallenge }

// maxHtpasswdLine bounds a line of a password file.
const maxHtpasswdLine = 1024

// maxRemembered bounds the credentials whose check is remembered.
const maxRemembered = 256

// Htpasswd authorizes the users of an Apache password file, each for everything. Only bcrypt entries
// are taken: htpasswd -B writes them.
//
// Errors name the line that does not parse.
func Htpasswd(file io.Reader) (Authorizer, error) {
	h := &htpasswd{users: map[string][]byte{}, known: map[[sha256.Size]byte]bool{}, secret: []byte(rand.Text())}
	lines := bufio.NewScanner(file)
	lines.Buffer(make([]byte, maxHtpasswdLine), maxHtpasswdLine)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		user, hash, ok := strings.Cut(line, ":")
		if _, err := bcrypt.Cost([]byte(hash)); !ok || user == "" || err != nil {
			return nil, fmt.Errorf("line %d: want USER:HASH with a bcrypt hash, as htpasswd -B writes it", n)
		}
		h.users[user] = []byte(hash)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(h.users) == 0 {
		return nil, fmt.Errorf("no user in it; make one with htpasswd -B -c FILE USER")
	}
	return h, nil
}

type htpasswd struct {
	users  map[string][]byte
	secret []byte // keys the digests in known, so that they tell nothing of a password

	mu sync.Mutex // guards the fields below
	// known remembers good credentials: bcrypt is slow by intent, and a push is many requests.
	known map[[sha256.Size]byte]bool
}

func (h *htpasswd) Authorize(r *http.Request, _ Access) error {
	user, password, ok := r.BasicAuth()
	if !ok {
		return fmt.Errorf("%w: user name and password are needed", berth.ErrUnauthorized)
	}
	if !h.check(user, password) {
		return fmt.Errorf("%w: user name or password is wrong", berth.ErrUnauthorized)
	}
	return nil
}

func (h *htpasswd) Challenge(Access) string { return basicChallenge }

func (h *htpasswd) check(user, password string) bool {
	id := h.identify(user, password)
	h.mu.Lock()
	known := h.known[id]
	h.mu.Unlock()
	if known {
		return true
	}
	hash, ok := h.users[user]
	if !ok {
		hash = h.anyHash() // as slow as a wrong password, so that time does not tell who exists
	}
	if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil || !ok {
		return false
	}
	h.remember(id)
	return true
}

func (h *htpasswd) identify(user, password string) (id [sha256.Size]byte) {
	mac := hmac.New(sha256.New, h.secret)
	io.WriteString(mac, user+"\x00"+password)
	copy(id[:], mac.Sum(nil))
	return id
}

func (h *htpasswd) anyHash() []byte {
	for _, hash := range h.users {
		return hash
	}
	return nil
}

func (h *htpasswd) remember(id [sha256.Size]byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.known) >= maxRemembered {
		clear(h.known)
	}
	h.known[id] = true
}

// checkOrigin refuses what a browser may have been tricked into sending.
func (c *call) checkOrigin() error {
	if !c.ownHost(hostname(c.r.Host)) {
		return fmt.Errorf("%w: %.100q is not a name of this registry", berth.ErrDenied, c.r.Host)
	}
	origin := c.r.Header.Get("Origin")
	if u, err := url.Parse(origin); origin != "" && (err != nil || u.Host != c.r.Host) {
		return fmt.Errorf("%w: no requests from web pages", berth.ErrDenied)
	}
	if site := c.r.Header.Get("Sec-Fetch-Site"); site == "cross-site" || site == "same-site" {
		return fmt.Errorf("%w: no requests from web pages", berth.ErrDenied)
	}
	return nil
}

// ownHost reports whether a name is this machine's loopback interface, or one that was configured.
func (c *call) ownHost(name string) bool {
	return ocirequest.IsLoopback(name) || slices.Contains(c.opts.Hosts, strings.ToLower(strings.TrimSuffix(name, ".")))
}

// hostname is a Host header without its port and without brackets.
func hostname(host string) string {
	return (&url.URL{Host: host}).Hostname()
}
