package hostile

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/berthoci/berth/internal/canary"
)

// TokenOptions say how a TokenServer behaves. The zero value gives everybody who shows no credential
// tokens to pull, good for five minutes, and says so.
type TokenOptions struct {
	// Users may have all they ask for, by these passwords.
	Users map[string]string
	// Identities are the identity tokens that may have all they ask for, by POST (row 5), or as a
	// password by GET.
	Identities []string
	// Private gives nothing to who shows no credential.
	Private bool
	// RefuseUsers is the status for every credential, good or not; who shows none is served (row 10).
	RefuseUsers int
	// Withhold are actions that no token has, whoever asks (row 6).
	Withhold []string
	// RefuseWhole is the status for who asks for more than there is to have, in place of a token that
	// has less (row 8).
	RefuseWhole int

	// Lifetime of a token: how long the registry takes it. Zero: five minutes.
	Lifetime time.Duration
	// OmitExpiry leaves expires_in out (row 4).
	OmitExpiry bool
	// ExpiresIn is what is said instead of the truth, in seconds (row 4). Zero: the truth.
	ExpiresIn int
	// IssuedAt is a lie about that (row 4). Zero: it is not said.
	IssuedAt string
	// AccessToken calls the token access_token, and not token (row 4).
	AccessToken bool

	// PostStatus is the answer to every POST (row 5): 400, 401, 404 or 405. Zero: POST is taken.
	PostStatus int
	// Rotate gives another identity token with each POST, and takes the one before no more; who
	// shows it nevertheless has lost them all (row 5).
	Rotate bool
	// RedirectTo is where every request is sent on to (rows 11 and 12). Zero: nowhere.
	RedirectTo string
	// Echo repeats in a refusal what was sent.
	Echo bool
	// Faults befall requests before anything else; Cut and Stall without After.
	Faults []*Fault
	// Now is the time. Nil: time.Now.
	Now func() time.Time
}

// Exchange is a request for a token, as it was received.
type Exchange struct {
	Method string
	// Service and Scopes are what the token is for.
	Service string
	Scopes  []string
	// Username and Password of Basic authentication, if there was one.
	Username, Password string
	// RefreshToken, GrantType and ClientID of a POST.
	RefreshToken, GrantType, ClientID string
}

// TokenServer gives the tokens of a Registry. It is an [http.Handler], and keeps what it was asked.
type TokenServer struct {
	mu         sync.Mutex // mu guards the fields below
	options    TokenOptions
	asked      []Exchange
	given      map[string]*granted
	identities map[string]bool // false: it was replaced
	spoilt     bool            // a replaced one was shown
}

// granted is what a token is good for.
type granted struct {
	scopes []string // each with one action
	until  time.Time
}

// NewTokenServer returns a server that has given no tokens. Nil is the zero TokenOptions.
func NewTokenServer(opts *TokenOptions) *TokenServer {
	s := &TokenServer{given: map[string]*granted{}, identities: map[string]bool{}}
	if opts != nil {
		s.options = *opts
	}
	for _, identity := range s.options.Identities {
		s.identities[identity] = true
	}
	return s
}

// Change alters how the server behaves from the next request on.
func (s *TokenServer) Change(alter func(*TokenOptions)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	alter(&s.options)
}

// Exchanges returns what was asked so far, in the order in which it came.
func (s *TokenServer) Exchanges() []Exchange {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// Expire ends all tokens that were given.
func (s *TokenServer) Expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.given)
}

// ServeHTTP answers as distribution's "Token Authentication Specification" and "OAuth2 Token Authentication"
// have it, but for the options.
func (s *TokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	status, answer, fault := s.answer(exchangeOf(r), r)
	if _, _, over := fault.strike(w, r, nil); over {
		return
	}
	if status/100 == 3 {
		http.Redirect(w, r, fmt.Sprint(answer["to"]), status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(answer)
}

func exchangeOf(r *http.Request) Exchange {
	x := Exchange{
		Method: r.Method, Service: r.Form.Get("service"), RefreshToken: r.PostForm.Get("refresh_token"),
		GrantType: r.PostForm.Get("grant_type"), ClientID: r.PostForm.Get("client_id"),
	}
	x.Username, x.Password, _ = r.BasicAuth()
	for _, scope := range r.Form["scope"] {
		x.Scopes = append(x.Scopes, strings.Fields(scope)...)
	}
	return x
}

func (s *TokenServer) answer(x Exchange, r *http.Request) (status int, answer map[string]any, fault *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, x)
	if fault := befalls(s.options.Faults, r); fault != nil {
		return 0, nil, fault
	}
	switch {
	case s.options.RedirectTo != "":
		return http.StatusTemporaryRedirect, map[string]any{"to": s.options.RedirectTo}, nil
	case x.Method == http.MethodPost && s.options.PostStatus != 0:
		return s.options.PostStatus, s.refusal(x, "no POST here"), nil
	}
	if status := s.recognise(x); status != http.StatusOK {
		return status, s.refusal(x, "who are you"), nil
	}
	scopes, all := s.rights(x)
	if !all && s.options.RefuseWhole != 0 {
		return s.options.RefuseWhole, s.refusal(x, "that is more than you may have"), nil
	}
	return http.StatusOK, s.give(x, scopes), nil
}

func (s *TokenServer) refusal(x Exchange, message string) map[string]any {
	if s.options.Echo {
		pair := base64.StdEncoding.EncodeToString([]byte(x.Username + ":" + x.Password))
		message += fmt.Sprint(": you sent ", x.Password, " ", pair, " ", x.RefreshToken)
	}
	return map[string]any{"details": message}
}

func (x Exchange) anonymous() bool {
	return x.Username == "" && x.Password == "" && x.RefreshToken == ""
}

// recognise returns 200 for who may have a token.
func (s *TokenServer) recognise(x Exchange) int {
	if x.anonymous() {
		if s.options.Private {
			return http.StatusUnauthorized
		}
		return http.StatusOK
	}
	if s.options.RefuseUsers != 0 {
		return s.options.RefuseUsers
	}
	identity := x.RefreshToken
	if identity == "" {
		identity = x.Password
	}
	if newest, known := s.identities[identity]; known {
		s.spoilt = s.spoilt || !newest
		if s.spoilt {
			return http.StatusBadRequest
		}
		return http.StatusOK
	}
	if want, known := s.options.Users[x.Username]; known && want == x.Password {
		return http.StatusOK
	}
	return http.StatusUnauthorized
}

// rights returns what of that which is asked for there is to have, one action a scope, and whether it is all.
func (s *TokenServer) rights(x Exchange) (scopes []string, all bool) {
	all = true
	for _, scope := range x.Scopes {
		colon := strings.LastIndexByte(scope, ':')
		for action := range strings.SplitSeq(scope[colon+1:], ",") {
			if slices.Contains(s.options.Withhold, action) || x.anonymous() && action != "pull" {
				all = false
				continue
			}
			scopes = append(scopes, scope[:colon+1]+action)
		}
	}
	return scopes, all
}

// give makes a token. It is longer the more it is good for, as those are that hold their scopes.
func (s *TokenServer) give(x Exchange, scopes []string) map[string]any {
	lifetime := s.options.Lifetime
	if lifetime == 0 {
		lifetime = 5 * time.Minute
	}
	token := fmt.Sprintf("%st%d.%s", canary.Mark, len(s.asked), base64.RawURLEncoding.EncodeToString([]byte(strings.Join(scopes, " "))))
	s.given[token] = &granted{scopes: scopes, until: s.now().Add(lifetime)}
	answer := map[string]any{"token": token, "expires_in": int(lifetime.Seconds())}
	if s.options.ExpiresIn != 0 {
		answer["expires_in"] = s.options.ExpiresIn
	}
	if s.options.OmitExpiry {
		delete(answer, "expires_in")
	}
	if s.options.IssuedAt != "" {
		answer["issued_at"] = s.options.IssuedAt
	}
	if s.options.AccessToken {
		answer["access_token"] = token
		delete(answer, "token")
	}
	if s.options.Rotate && x.RefreshToken != "" {
		next := fmt.Sprintf("%s+%d", s.options.Identities[0], len(s.asked))
		s.identities[x.RefreshToken], s.identities[next] = false, true
		answer["refresh_token"] = next
	}
	return answer
}

func (s *TokenServer) now() time.Time {
	if s.options.Now != nil {
		return s.options.Now()
	}
	return time.Now()
}

// judge says what is wrong with a token that shall be good for what is needed, as the parameter error of a
// challenge has it (RFC 6750, 3.1); "" if nothing is.
func (s *TokenServer) judge(token string, needed []string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.given[token]
	if g == nil || !s.now().Before(g.until) {
		return "invalid_token"
	}
	for _, scope := range needed {
		if !slices.Contains(g.scopes, scope) {
			return "insufficient_scope"
		}
	}
	return ""
}
