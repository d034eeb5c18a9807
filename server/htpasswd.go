package server

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/crypto/bcrypt"

	"github.com/berthoci/berth"
)

const (
	// maxHtpasswdLine bounds a line of a password file.
	maxHtpasswdLine = 1024
	// maxCost bounds the work that a hash makes of each password that is tried: about a second.
	maxCost = 14
	// maxPassword is what bcrypt looks at of a password, in bytes.
	maxPassword = 72
	// maxRemembered bounds the credentials whose check is remembered.
	maxRemembered = 256
	// maxWaiting bounds those who wait for a password to be checked.
	maxWaiting = 64
)

// bcryptPattern is a bcrypt hash: version, cost, 22 characters of salt and 31 of hash. Package bcrypt looks at
// most of that only when a password is compared.
var bcryptPattern = lazily(`^\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}$`)

// Users tell who somebody is by a password. [Passwords] are such; a program that keeps users elsewhere
// brings its own.
type Users interface {
	// Login returns nil if the password is that of the user. It may run any number of times at once.
	//
	// Errors: berth.ErrUnauthorized, berth.ErrTooManyRequests, ctx.Err().
	Login(ctx context.Context, user, password string) error
}

// Passwords are the users of an Apache password file. They are [Users] for an [Issuer], and also an
// [Authorizer] by themselves, which lets each user do everything.
//
// A password is checked with bcrypt, which is slow by intent. At most half of the processors do that at
// once, a bounded number of requests waits for them, and the rest is turned away, so that whoever tries
// passwords does not stop those who are known: credentials that were good once are remembered.
type Passwords struct {
	users  map[string]user
	decoy  []byte // the costliest hash: what a password of nobody is compared with
	secret []byte // keys the digests in known, so that they tell nothing of a password
	gate   gate

	mu sync.Mutex // guards the fields below
	// known remembers good credentials, for a push is many requests.
	known map[[sha256.Size]byte]bool
}

// user is a line of a password file.
type user struct {
	hash []byte
	line int
}

// Htpasswd reads an Apache password file: lines of USER:HASH, empty ones, and comments that begin with #.
// Only bcrypt hashes are taken, of a cost up to 14: htpasswd -B writes them. The file is read once; to
// change who is let in, start anew.
//
// Errors name the line that is not taken, and never quote a hash.
func Htpasswd(file io.Reader) (*Passwords, error) {
	p := &Passwords{users: map[string]user{}, known: map[[sha256.Size]byte]bool{}, secret: []byte(rand.Text())}
	p.gate = newGate(max(1, runtime.GOMAXPROCS(0)/2), maxWaiting)
	lines := bufio.NewScanner(file)
	lines.Buffer(make([]byte, maxHtpasswdLine), maxHtpasswdLine)
	for n := 1; lines.Scan(); n++ {
		if err := p.add(strings.TrimSpace(lines.Text()), n); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(p.users) == 0 {
		return nil, errors.New("no user in it; make one with htpasswd -B -c FILE USER")
	}
	return p, nil
}

// Has reports whether there is a user of that name.
func (p *Passwords) Has(name string) bool {
	_, found := p.users[name]
	return found
}

// add takes one line.
func (p *Passwords) add(line string, n int) error {
	if line == "" || line[0] == '#' {
		return nil
	}
	name, hash, ok := strings.Cut(line, ":")
	cost, err := bcrypt.Cost([]byte(hash))
	switch earlier, twice := p.users[name]; {
	case !ok || name == "" || err != nil || !bcryptPattern().MatchString(hash):
		return errors.New("want USER:HASH with a bcrypt hash, as htpasswd -B writes it")
	case cost > maxCost:
		return fmt.Errorf("a bcrypt hash of cost %d takes too long to check; make one of at most %d with htpasswd -B -C 10", cost, maxCost)
	case twice:
		return fmt.Errorf("user %.100q is in line %d already; remove one", name, earlier.line)
	}
	p.users[name] = user{[]byte(hash), n}
	if decoyCost, err := bcrypt.Cost(p.decoy); err != nil || cost > decoyCost {
		p.decoy = []byte(hash)
	}
	return nil
}

// Authorize lets in whoever shows a user's password (RFC 7617), for everything.
func (p *Passwords) Authorize(r *http.Request, _ Access) error {
	name, password, ok := r.BasicAuth()
	if !ok {
		return fmt.Errorf("%w: user name and password are needed", berth.ErrUnauthorized)
	}
	return p.Login(r.Context(), name, password)
}

// Challenge asks for user name and password.
func (p *Passwords) Challenge(*http.Request, Access, error) string { return basicChallenge }

// Login returns nil if the password is that of the user. A password of more than 72 bytes is nobody's:
// bcrypt does not look at what follows, and two that differ there would be the same.
//
// Errors: berth.ErrUnauthorized; berth.ErrTooManyRequests where too many passwords are being checked;
// ctx.Err().
func (p *Passwords) Login(ctx context.Context, user, password string) error {
	if len(password) > maxPassword {
		return fmt.Errorf("%w: a password has at most %d bytes", berth.ErrUnauthorized, maxPassword)
	}
	id := p.identify(user, password)
	if p.isKnown(id) {
		return nil
	}
	if err := p.gate.enter(ctx); err != nil {
		return err
	}
	defer p.gate.leave()
	if p.isKnown(id) { // since this one has begun to wait: clients ask many things at once
		return nil
	}
	if !p.matches(user, password) {
		return fmt.Errorf("%w: user name or password is wrong", berth.ErrUnauthorized)
	}
	p.remember(id)
	return nil
}

// matches takes as long for a user who is not there as for one who is, so that time does not tell who is: as
// long as all hashes have the same cost, for the one of nobody is that of the costliest.
func (p *Passwords) matches(name, password string) bool {
	hash := p.decoy
	user, ok := p.users[name]
	if ok {
		hash = user.hash
	}
	return bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil && ok
}

func (p *Passwords) identify(user, password string) (id [sha256.Size]byte) {
	mac := hmac.New(sha256.New, p.secret)
	io.WriteString(mac, user+"\x00"+password)
	copy(id[:], mac.Sum(nil))
	return id
}

func (p *Passwords) isKnown(id [sha256.Size]byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known[id]
}

func (p *Passwords) remember(id [sha256.Size]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.known) >= maxRemembered {
		clear(p.known)
	}
	p.known[id] = true
}
